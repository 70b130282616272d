"""HTTP/2 on a real socket: nothing is smuggled in translation, back-pressure holds, cancellation arrives, floods end."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tests.e2e.whole_gateway import eventually
from tests.wire.h2_client import Fields, Goaway, H2Client, Reset
from tests.wire.rig import GET, Client, Rig

pytestmark = pytest.mark.parametrize("http2", ["front", "hypercorn"], indirect=True, scope="module")

METHOD = (b":method", b"GET")
SCHEME = (b":scheme", b"https")
AUTHORITY = (b":authority", b"localhost")
PATH = (b":path", b"/orders/7")
WHOLE = [METHOD, SCHEME, AUTHORITY, PATH]
BIG = 32 << 20


# -- the choice --------------------------------------------------------------------------------------


def test_alpn_chooses_and_each_parser_sees_its_own_bytes(rig: Rig) -> None:
    with Client(rig.gateway) as client:
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        answer = client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").answer()
        assert (answer.status, answer.reason) == (400, "malformed-request")
    with H2Client(rig.gateway) as two:
        two.tls.sendall(GET)  # HTTP/1.1 where HTTP/2 was chosen
        two.pump_until_closed()
        assert two.goaways
    assert rig.upstream.seen == b""


def test_h2c_is_not_spoken(rig: Rig) -> None:
    with rig.client() as client:
        upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        assert client.send(GET[:-2] + upgrade).answer().status == 200  # HTTP/1.1: the wish is ignored


def test_a_reload_that_turns_it_off_leaves_open_connections_alone(rig: Rig, http2: str) -> None:
    path = rig.gateway.directory / "edge.yaml"
    text = path.read_text()

    def chosen() -> str | None:
        context = ssl.create_default_context(cafile=path.parent / "state" / "identity" / "public" / "bundle.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", rig.gateway.public), 15) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            return tls.selected_alpn_protocol()

    with H2Client(rig.gateway) as client:
        assert client.ask().status == 200
        path.write_text(text.replace(f"http2: {http2}", "http2: off"))
        try:
            eventually(lambda: chosen() == "http/1.1", 15)
            assert client.ask().status == 200
        finally:
            path.write_text(text)
        eventually(lambda: chosen() == "h2", 15)


# -- smuggling by translation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        ([*WHOLE, (b"x-a", b"1\r\nx-b: 2")], "field-value"),
        ([*WHOLE, (b"x-a", b"1\n")], "field-value"),
        ([*WHOLE, (b"x-a", b"1\x00")], "field-value"),
        ([*WHOLE, (b"x-a", b" 1")], "field-value"),
        ([*WHOLE, (b"x-a", b"1\t")], "field-value"),
        ([*WHOLE, (b"x-a\r\nx-b", b"1")], "field-name"),
        ([*WHOLE, (b"x a", b"1")], "field-name"),
        ([*WHOLE, (b"x:a", b"1")], "field-name"),
        ([*WHOLE, (b"x\x00a", b"1")], "field-name"),
        ([*WHOLE, (b"X-A", b"1")], "field-name"),
        ([*WHOLE, (b"x-\xc3\xa9", b"1")], "field-name"),
        ([*WHOLE, (b"", b"1")], "field-name"),
        ([*WHOLE, (b"transfer-encoding", b"chunked")], "connection-field"),
        ([*WHOLE, (b"connection", b"close")], "connection-field"),
        ([*WHOLE, (b"keep-alive", b"1")], "connection-field"),
        ([*WHOLE, (b"proxy-connection", b"close")], "connection-field"),
        ([*WHOLE, (b"upgrade", b"h2c")], "connection-field"),
        ([*WHOLE, (b"te", b"gzip")], "connection-field"),
        ([*WHOLE, (b"te", b"trailers, chunked")], "connection-field"),
        ([*WHOLE, AUTHORITY], "pseudo-field"),
        ([*WHOLE, PATH], "pseudo-field"),
        ([*WHOLE, (b":method", b"POST")], "pseudo-field"),
        ([*WHOLE, (b":protocol", b"websocket")], "pseudo-field"),
        ([*WHOLE, (b":status", b"200")], "pseudo-field"),
        ([METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH], "pseudo-field"),
        ([SCHEME, AUTHORITY, PATH], "pseudo-field"),
        ([METHOD, SCHEME, AUTHORITY], "pseudo-field"),
        ([METHOD, AUTHORITY, PATH], "scheme"),
        ([METHOD, (b":scheme", b"http"), AUTHORITY, PATH], "scheme"),
        ([METHOD, SCHEME, PATH], "host-missing"),
        ([*WHOLE, (b"host", b"elsewhere")], "host-disagrees"),
        ([*WHOLE, (b"host", b"localhost"), (b"host", b"localhost")], "field-repeated"),
        ([METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"localhost")], "field-repeated"),
        ([METHOD, SCHEME, (b":authority", b"localhost, evil"), PATH], "host-syntax"),
        ([METHOD, SCHEME, (b":authority", b"user@localhost"), PATH], "host-syntax"),
        ([METHOD, SCHEME, (b":authority", b"localhost\r\n"), PATH], None),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/orders/7 HTTP/1.1\r\nx: y")], None),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/orders/a b")], "target-control-byte"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/orders/\xc3\xa9")], "target-not-ascii"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"")], "target-form"),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"orders/7")], "target-form"),
        ([(b":method", b"get"), SCHEME, AUTHORITY, PATH], "method"),
        ([(b":method", b"GET /x HTTP/1.1\r\n"), SCHEME, AUTHORITY, PATH], "method"),
        ([(b":method", b"G\xc3\xa9T"), SCHEME, AUTHORITY, PATH], "method"),
        ([(b":method", b"CONNECT"), AUTHORITY], "pseudo-field"),
        ([(b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH], "method"),
        ([(b":method", b"CONNECT"), (b":protocol", b"connect-udp"), SCHEME, AUTHORITY, PATH], "pseudo-field"),
    ],
)  # fmt: skip
def test_what_would_be_another_request_in_http1_is_refused_C2(rig: Rig, head: Fields, rule: str | None) -> None:
    with H2Client(rig.gateway) as client:
        answer = client.answer(client.head(head))
        assert (answer.status, answer.reason) == (400, "malformed-request")
        assert client.ask().status == 200  # the other streams of the connection are not punished
    assert rig.upstream.seen.count(b"x-request-id: ") == 1
    leaf = rig.record(answer.fields["x-request-id"])
    assert leaf.get("http.version", "2") == "2"
    if rule is not None:
        assert leaf["rule.id"] == rule


@pytest.mark.parametrize("length", [b"4", b"6", b"+5", b"5, 5", b"\xd9\xa5"])
def test_a_length_that_is_not_the_bodys_never_frames_a_request(rig: Rig, length: bytes) -> None:
    with H2Client(rig.gateway) as client:
        stream = client.head(
            [(b":method", b"POST"), SCHEME, AUTHORITY, PATH, (b"content-length", length)], body=b"hello"
        )
        try:
            assert client.answer(stream).status == 400
        except (Goaway, EOFError, OSError, Reset):
            pass
    with rig.client() as client1:
        assert client1.send(GET).answer().body == b"ok"
    assert rig.upstream.seen.count(b"HTTP/1.1\r\n") <= 2  # no third request was made of what was left over


def test_trailers_of_a_request_are_dropped(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        stream = client.head([(b":method", b"POST"), SCHEME, AUTHORITY, PATH], is_end=False)
        client.send(stream, b"hi")
        client.connection.send_headers(stream, [(b"authorization", b"Bearer evil")], end_stream=True)
        client.flush()
        assert client.answer(stream).status == 200
    assert b"evil" not in rig.upstream.seen
    assert rig.upstream.seen.endswith(b"2\r\nhi\r\n0\r\n\r\n")


def test_crumbs_of_a_cookie_are_one_field(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        assert client.ask(fields=[(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2")]).status == 200
    assert rig.upstream.seen.count(b"cookie: ") == 1
    assert b"\r\ncookie: a=1; b=2\r\n" in rig.upstream.seen


# -- streams -----------------------------------------------------------------------------------------


def test_many_streams_at_once_get_their_own_answers(rig: Rig) -> None:
    rig.upstream.echoes = True
    with H2Client(rig.gateway) as client:
        streams = {client.request("POST", "/orders/x", body=b"%d" % at): b"%d" % at for at in range(90)}
        wrong = [body for stream, body in streams.items() if client.answer(stream).body.find(body) < 0]
    assert not wrong


def test_a_reader_that_stopped_holds_its_stream_and_no_other(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG)]
    with H2Client(rig.gateway, window=65_535) as client:
        before = rig.resident_bytes()
        client.acks = False
        stuck = client.request()
        eventually(lambda: not rig.upstream.answers, 15)
        client.pump_until_quiet(0.5)
        assert len(client.bodies[stuck]) == 65_535  # its window, and the connection's
        assert rig.resident_bytes() - before < 12 << 20
        client.acks = True
        client.connection.increment_flow_control_window(1 << 24)
        client.flush()
        assert client.ask().body == b"ok"  # beside the stuck one
        client.connection.increment_flow_control_window(65_535, stuck)
        client.connection.acknowledge_received_data(65_535, stuck)
        client.flush()
        assert len(client.answer(stuck).body) == BIG


def test_an_upload_that_is_not_taken_stops_itself_alone(rig: Rig) -> None:
    rig.upstream.reads.clear()
    try:
        with H2Client(rig.gateway) as client:
            before = rig.resident_bytes()
            stream = client.head([(b":method", b"POST"), SCHEME, AUTHORITY, PATH], is_end=False)
            sent = client.send_what_fits(stream, 64 << 20)
            assert sent < 16 << 20  # what the kernels hold, and the stream's window
            assert rig.resident_bytes() - before < 12 << 20
            assert client.ask(path="/nowhere").status == 404  # the connection is not stuck
    finally:
        rig.upstream.reads.set()


def test_an_early_answer_ends_an_upload_and_the_connection_lives(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        for _ in range(40):  # more than the connection's window in all: what was not taken is given back
            stream = client.head(
                [(b":method", b"POST"), SCHEME, AUTHORITY, (b":path", b"/nowhere")], body=bytes(60_000), is_end=False
            )
            answer = client.answer(stream)
            assert (answer.status, answer.reason) == (404, "no-route")
        client.ask()
        assert set(client.resets.values()) == {0}  # NO_ERROR: stop sending, the answer stands (RFC 9113 §8.1)
        assert client.ask().status == 200
    assert b"POST" not in rig.upstream.seen


def test_a_body_above_the_limit_is_cut_off_in_the_middle(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        declared = client.head(
            [(b":method", b"POST"), SCHEME, AUTHORITY, (b":path", b"/small/x"), (b"content-length", b"5000")],
            is_end=False,
        )
        assert client.answer(declared).status == 413
        stream = client.head([(b":method", b"POST"), SCHEME, AUTHORITY, (b":path", b"/small/x")], is_end=False)
        client.send(stream, bytes(600))
        client.send(stream, bytes(600))
        answer = client.answer(stream)
        assert (answer.status, answer.reason) == (413, "payload-too-large")
        assert client.ask().status == 200
    assert b"\r\n0\r\n\r\n" not in rig.upstream.seen


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        head = [(b":method", b"POST"), SCHEME, AUTHORITY, PATH, (b"content-length", b"2"), (b"expect", b"100-continue")]
        stream = client.head(head, is_end=False)
        while stream not in client.interim:
            client.pump()
        assert client.interim[stream] == [100]
        client.send(stream, b"hi", is_end=True)
        assert client.answer(stream).status == 200


def test_a_cut_upstream_resets_the_stream_alone(rig: Rig) -> None:
    since = len(rig.leaves())
    rig.upstream.go_on.clear()
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalfWAITCUT"]
    with H2Client(rig.gateway) as client:
        stream = client.request("GET", "/orders/7")
        while b"half" not in client.bodies.get(stream, b""):
            client.pump()
        rig.upstream.go_on.set()
        with pytest.raises(Reset) as caught:
            client.answer(stream)
        assert caught.value.code == 2
        assert client.ask().body == b"ok"
    rig.leaf_where({"rule.id": "upstream-truncated", "http.response.body.bytes": 4}, since)


def test_a_silent_upstream_is_timed_out(rig: Rig) -> None:
    rig.upstream.answers = [b""]
    with H2Client(rig.gateway) as client:
        answer = client.ask(path="/quick/7")
        assert (answer.status, answer.reason) == (504, "upstream-timeout")


# -- cancellation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["reset", "goaway", "close"])
def test_a_client_that_leaves_cancels_its_request_upstream(rig: Rig, way: str) -> None:
    since = len(rig.leaves())
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"]
    with H2Client(rig.gateway) as client:
        stream = client.request()
        while bytes(client.bodies.get(stream, b"")) != b"half":
            client.pump()
        open_before = rig.upstream.open_connections
        if way == "reset":
            client.reset(stream)
        elif way == "goaway":
            client.connection.close_connection(8)  # an error: what is under way is not wanted any more
            client.flush()
        else:
            client.close()
        rig.leaf_where({"event.reason": "client-gone", "http.response.body.bytes": 4}, since)
        eventually(lambda: rig.upstream.open_connections < open_before, 15)


def test_a_client_that_leaves_in_its_body_completes_nothing(rig: Rig) -> None:
    since = len(rig.leaves())
    with H2Client(rig.gateway) as client:
        stream = client.head([(b":method", b"POST"), SCHEME, AUTHORITY, PATH], is_end=False)
        client.send(stream, b"hello")
        eventually(lambda: b"hello" in rig.upstream.seen, 15)
        client.reset(stream)
        rig.leaf_where({"event.reason": "client-gone", "http.request.body.bytes": 5}, since)
    assert b"\r\n0\r\n\r\n" not in rig.upstream.seen


# -- floods ------------------------------------------------------------------------------------------


def ends_calmly(client: H2Client, frames: bytes, count: int) -> bool:
    """Whether the gateway says ENHANCE_YOUR_CALM and closes before it took `count` times the frames."""
    try:
        for _ in range(count):
            client.tls.sendall(frames)
        while True:
            client.pump()
    except (EOFError, OSError):
        return not client.goaways or client.goaways[-1] == 11


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize(
    "flood",
    [
        frame(6, 0, 0, bytes(8)),  # PING
        frame(4, 0, 0, b""),  # SETTINGS
        frame(8, 0, 0, b"\0\0\0\1"),  # WINDOW_UPDATE
        frame(0xEE, 0, 0, b""),  # unknown
        frame(2, 0, 1, b"\0\0\0\0\x10"),  # PRIORITY
    ],
)
def test_frames_that_carry_nothing_are_not_taken_for_ever_C4(rig: Rig, flood: bytes) -> None:
    with H2Client(rig.gateway) as client:
        assert client.ask().status == 200
        assert ends_calmly(client, flood * 200, 40)
    with H2Client(rig.gateway) as client:
        assert client.ask().status == 200


def test_rapid_resets_end_the_connection_and_leave_nothing_behind_C4(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        try:
            for _ in range(600):
                stream = client.connection.get_next_available_stream_id()
                client.connection.send_headers(stream, WHOLE, end_stream=True)
                client.connection.reset_stream(stream, 8)
                client.flush()
            while True:
                client.pump()
        except (EOFError, OSError):
            assert not client.goaways or client.goaways[-1] == 11
    with H2Client(rig.gateway) as client:
        assert client.ask().status == 200


def test_more_resets_than_the_priority_tree_holds_are_forgotten(rig: Rig) -> None:
    with H2Client(rig.gateway) as client:
        for at in range(1100):
            assert client.answer(client.request(path="/nowhere")).status == 404
            if at % 100 == 0:
                client.reset(client.request())
        assert client.ask().status == 200


def test_nobody_outside_makes_the_worker_complain(rig: Rig) -> None:
    time.sleep(0.1)
    assert not [line for line in rig.gateway.lines if "internal" in line or "unexpected" in line or "Traceback" in line]
