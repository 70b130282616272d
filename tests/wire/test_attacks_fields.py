"""Attacks B1–B7, C1–C7 and E8 on a real socket, over both protocols where both can say them.

Each is held to three things: what the client got, that the upstream saw nothing it should not, and the reason in the log.
More of the same by protocol is in `test_smuggling`, `test_http1`, `test_http2` and `test_streams`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edge.forward.fields import MANAGED
from tests.wire.h2_client import Fields, H2Client
from tests.wire.judge import MALFORMED, judged, refused_by_http2, seen_fields
from tests.wire.rig import GET, HEAD, OK, Client, Rig, refused
from tests.wire.speaker import Http1Speaker, Speaker

# -- B: identity headers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MANAGED))
def test_B1_a_field_that_the_gateway_speaks_by_is_the_gateway_s(rig: Rig, speaker: Speaker, name: bytes) -> None:
    """Nobody is authenticated here: what is not set must not be left standing either."""
    assert speaker.ask(fields=[(name, b"spoofed"), (b"x-kept", b"1"), (name, b"spoofed")]).status == 200
    assert b"spoofed" not in rig.upstream.seen
    assert not {b"x-auth-subject", b"x-auth-issuer", b"x-auth-scopes", b"edge-assertion"} & set(seen_fields(rig))
    assert seen_fields(rig)[b"x-kept"] == b"1"


@pytest.mark.parametrize("mark", [b"_", b".", b"~", b"'", b"+", b"!", b"%", b"|"])
def test_B2_a_name_that_a_server_may_read_as_a_managed_one_is_refused(rig: Rig, speaker: Speaker, mark: bytes) -> None:
    for name in (b"x-auth-subject", b"x-forwarded-for", b"x-anything-at-all", b"transfer-encoding"):
        look_alike = name.replace(b"-", mark, 1)
        judged(rig, speaker.ask(fields=[(look_alike, b"root")]), *MALFORMED, "field-name")


def test_B3_case_makes_no_other_field(rig: Rig) -> None:
    for name in (b"X-Auth-Subject", b"x-AUTH-subject", b"X-AUTH-SUBJECT", b"Edge-Assertion", b"FORWARDED"):
        speaker = Http1Speaker(rig.gateway)
        assert speaker.ask(fields=[(name, b"spoofed")]).status == 200
        speaker.close()
    assert b"spoofed" not in rig.upstream.seen
    rig.upstream.clear()
    for name in (b"X-Auth-Subject", b"x-auth-Subject"):  # no field of HTTP/2 at all (RFC 9113 §8.2.1)
        with H2Client(rig.gateway) as client:
            refused_by_http2(rig, lambda client=client, name=name: client.ask(fields=[(name, b"spoofed")]))  # type: ignore[misc]


@pytest.mark.parametrize(
    "tokens", [b"X-Forwarded-For, Host", b"x-request-id,forwarded", b"X-Auth-Subject", b"close, via"]
)
def test_B4_connection_removes_nothing_that_the_gateway_adds(rig: Rig, tokens: bytes) -> None:
    raw = GET[:-2] + b"Connection: %b, X-Hop\r\nX-Hop: 1\r\nUpgrade: x\r\n\r\n" % tokens
    with rig.client() as client:
        assert client.send(raw).answer().status == 200
    fields = seen_fields(rig)
    assert {b"host", b"x-forwarded-for", b"x-request-id", b"forwarded"} <= set(fields)
    assert not {b"connection", b"upgrade", b"x-hop"} & set(fields)
    rig.upstream.clear()
    with H2Client(rig.gateway) as http2:
        refused_by_http2(rig, lambda: http2.ask(fields=[(b"connection", tokens)]))


def test_B5_the_caller_s_address_is_the_socket_s(rig: Rig, speaker: Speaker) -> None:
    said: Fields = [
        (b"forwarded", b'for="_x, for=evil";host=evil;proto=http, for=unknown'),
        (b"x-forwarded-for", b"10.0.0.1, 127.0.0.1"),
        (b"x-forwarded-for", b"evil"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"evil"),
        (b"x-forwarded-port", b"1234"),
        (b"x-forwarded-prefix", b"//evil"),
        (b"x-forwarded-uri", b"/evil"),
        (b"x-real-ip", b"10.0.0.1"),
        (b"x-client-ip", b"10.0.0.1"),
    ]
    answer = speaker.ask(fields=said)
    assert answer.status == 200
    fields = seen_fields(rig)
    assert fields[b"forwarded"] == b'for=127.0.0.1;host="localhost";proto=https'
    assert (fields[b"x-forwarded-for"], fields[b"x-forwarded-proto"]) == (b"127.0.0.1", b"https")
    assert b"evil" not in rig.upstream.seen
    assert rig.record(answer.fields["x-request-id"])["source.ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    "name", [b"x-forwarded-client-cert", b"ssl-client-cert", b"ssl-client-verify", b"x-ssl-client-cert"]
)
def test_B6_a_certificate_in_a_field_is_none(rig: Rig, speaker: Speaker, name: bytes) -> None:
    assert speaker.ask(fields=[(name, b"Subject=CN-admin")]).status == 200
    assert name not in seen_fields(rig)


def test_B7_credentials_go_to_nobody_they_are_not_for(rig: Rig, speaker: Speaker) -> None:
    """Not to the upstream unless its route says so, and never to where an upstream points."""
    rig.upstream.answers = [b"HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n"]
    said: Fields = [(b"authorization", b"Bearer secret"), (b"proxy-authorization", b"Basic secret")]
    answer = speaker.ask(fields=said)
    assert (answer.status, answer.fields["location"]) == (302, "https://evil.example/")
    assert b"secret" not in rig.upstream.seen
    assert rig.upstream.seen.count(b"HTTP/1.1\r\n") == 1
    leaf = rig.record(answer.fields["x-request-id"])
    assert "secret" not in str(leaf)


# -- C: framing, protocols, pools ----------------------------------------------------------------------


def test_C1_one_request_is_one_request_and_what_is_two_is_none(rig: Rig) -> None:
    evil = b"GET /orders/evil HTTP/1.1\r\n" + HEAD + b"\r\n"
    post = b"POST /orders/7 HTTP/1.1\r\n" + HEAD
    for raw in (
        post + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
        post + b"Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n\r\n0\r\n\r\n" + evil,
        post.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil,
        post + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + evil,
        post + b"X: y\r\n Content-Length: 44\r\n\r\n" + evil,
        post.replace(b"\r\n", b"\n") + b"\n" + evil,
    ):
        refused(rig, raw, *MALFORMED)


def test_C2_what_translates_into_another_request_is_refused(rig: Rig) -> None:
    head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/orders/7")]
    for extra in (
        (b"transfer-encoding", b"chunked"),
        (b"x-a", b"b\r\nx-evil: 1"),
        (b"x-a: b\r\nx-evil", b"1"),
        (b"x a", b"b"),
        (b"x:a", b"b"),
        (b"upgrade", b"h2c"),
        (b":path", b"/orders/8"),
        (b"te", b"gzip"),
    ):
        with H2Client(rig.gateway) as client:
            refused_by_http2(rig, lambda client=client, extra=extra: client.answer(client.head([*head, extra])))  # type: ignore[misc]
    for path in (b"/orders/7 HTTP/1.1\r\nx-evil: 1", b"/orders/7\r\n\r\nGET /evil"):
        with H2Client(rig.gateway) as client:
            refused_by_http2(rig, lambda client=client, path=path: client.ask(path=path))  # type: ignore[misc]


def test_C3_nothing_is_switched_and_nothing_of_it_poisons_the_pool(rig: Rig, speaker: Speaker) -> None:
    rig.upstream.answers = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + OK,
        OK + OK.replace(b"ok", b"no"),
        b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil",
    ]
    first = speaker.ask("POST", b"/orders/x", [(b"content-length", b"0")], body=b"")
    assert (first.status, first.reason) == (502, "upstream-protocol")
    assert rig.record(first.fields["x-request-id"])["rule.id"] == "upstream-upgrade"
    assert [speaker.ask().body, speaker.ask().body, speaker.ask().body] == [b"ok", b"", b"ok"]


def test_C3_a_tunnel_is_not_opened(rig: Rig) -> None:
    for target in (b"localhost:443", b"/orders/7", b"orders.internal:9101"):
        refused(rig, b"CONNECT " + target + b" HTTP/1.1\r\n" + HEAD + b"\r\n" + GET, *MALFORMED, "method")
    with H2Client(rig.gateway) as client:
        head = [(b":method", b"CONNECT"), (b":authority", b"localhost:443")]
        refused_by_http2(rig, lambda: client.answer(client.head(head)))


def test_C4_what_is_counted_has_a_bound(rig: Rig, speaker: Speaker) -> None:
    many = b"&".join(b"a%d=1" % number for number in range(600))
    judged(rig, speaker.ask("GET", b"/orders/7?" + many), 414, "uri-too-long", "query-parameters")
    judged(rig, speaker.ask("GET", b"/orders/" + b"a" * 8200), 414, "uri-too-long")
    fields = [(b"x-%d" % number, b"1") for number in range(129)]
    judged(rig, speaker.ask(fields=fields), 431, "headers-too-large", "field-count")
    judged(rig, speaker.ask(fields=[(b"x-a", b"a" * 33_000)]), 431, "headers-too-large")
    body = [(b"content-length", b"1001")]
    judged(rig, speaker.ask("POST", b"/small/7", body, body=bytes(1001)), 413, "payload-too-large")


def test_C5_trailers_are_no_fields(rig: Rig, speaker: Speaker) -> None:
    speaker.begin("POST", b"/orders/7", has_body=True)
    speaker.send(b"hello")
    speaker.finish([(b"x-auth-subject", b"root"), (b"authorization", b"Bearer evil"), (b"x-late", b"evil")])
    assert speaker.answer().status == 200
    assert b"hello" in rig.upstream.seen
    for word in (b"root", b"evil", b"x-late"):
        assert word not in rig.upstream.seen
    rig.upstream.answers = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nset-cookie: evil\r\n\r\n"
    ]
    answer = speaker.ask()
    assert (answer.body, "set-cookie" in answer.fields) == (b"ok", False)


def test_C6_no_answer_is_given_to_anybody_else(rig: Rig, speaker: Speaker) -> None:
    """No cache, no coalescing: the same question is asked again, whatever the answer said about keeping it."""
    kept = b"HTTP/1.1 200 OK\r\ncache-control: public, max-age=999\r\nset-cookie: of=%d\r\ncontent-length: 1\r\n\r\n%d"
    rig.upstream.answers = [kept % (number, number) for number in range(4)]
    other = Http1Speaker(rig.gateway)
    callers = (speaker, other, speaker, other)
    answers = [caller.ask("GET", b"/orders/account.css", [(b"x-forwarded-host", b"evil")]) for caller in callers]
    other.close()
    assert [(answer.body, answer.fields["set-cookie"]) for answer in answers] == [
        (b"%d" % number, f"of={number}") for number in range(4)
    ]
    lost = speaker.ask("GET", b"/nowhere/account.css")
    assert (lost.status, lost.fields["cache-control"]) == (404, "no-store")


def test_C7_early_data_is_not_taken(rig: Rig, tmp_path: Path) -> None:
    """A ticket that allows none cannot be replayed with one (RFC 8446 §8); a client that sends some anyway gets nothing."""
    trust = rig.gateway.directory / "state" / "identity" / "public" / "bundle.pem"
    client = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{rig.gateway.public}",
        "-servername",
        "localhost",
        "-tls1_3",
    ]
    client += ["-CAfile", str(trust), "-quiet"]
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(b"GET /orders/early HTTP/1.1\r\n" + HEAD + b"\r\n")
    close = GET[:-2] + b"Connection: close\r\n\r\n"
    first = subprocess.run([*client, "-sess_out", str(session)], input=close, capture_output=True, timeout=10)
    assert first.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    shown = subprocess.run(
        ["openssl", "sess_id", "-in", str(session), "-text", "-noout"], capture_output=True, timeout=10
    )
    assert b"Max Early Data: 0" in shown.stdout
    resume = ["-sess_in", str(session), "-early_data", str(early)]
    again = subprocess.run([*client, *resume], input=close, capture_output=True, timeout=10)
    assert b"/orders/early" not in rig.upstream.seen
    assert again.stdout.count(b"HTTP/1.1 200 OK\r\n") <= 1
    with Client(rig.gateway) as other:
        assert other.send(GET).answer().status == 200


# -- E: the log ----------------------------------------------------------------------------------------


def test_E8_what_a_client_writes_makes_no_leaf_and_no_member_of_one(rig: Rig, speaker: Speaker) -> None:
    """Nor does a secret get in: of what was passed, of what was refused, and of what was never a request."""
    forged = b'","event.outcome":"success"}{"forged":"'
    encoded = b"".join(b"%%%02x" % byte for byte in b'\r\n{"forged":1}')
    said: Fields = [
        (b"user-agent", forged + "\u2028".encode()),
        (b"referer", forged),
        (b"cookie", b"forged=secret"),
        (b"authorization", b"Bearer forged-secret"),
        (b"x-request-id", forged),
        (b"traceparent", forged),
    ]
    told = b"/orders/%22,%22policy.ids%22:%22x"
    asked = ((told + b"?forged", 200), (b"/orders/" + encoded, 400), (b"/nowhere?" + b"forged" * 99, 404))
    rig.record(speaker.ask().fields["x-request-id"])  # whose leaf stands behind all earlier ones
    before = len(rig.leaves())
    for path, status in asked:
        answer = speaker.ask("GET", path, said)
        assert answer.status == status
        leaf = rig.record(answer.fields["x-request-id"])
        assert leaf["event.outcome"] == ("success" if status == 200 else "failure")
    leaves = rig.leaves()[before:]
    assert len(leaves) == len(asked)
    assert (leaves[0]["url.path"], leaves[0]["policy.ids"]) == (told.decode(), ["anybody"])
    assert not [leaf for leaf in leaves if any(word in str(leaf) for word in ("forged", "secret", "Bearer"))]
