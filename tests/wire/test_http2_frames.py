"""RFC 9113 §3–8 and RFC 7541 frame by frame: what is said by hand on a real socket, and with which code it ends."""

from __future__ import annotations

import pytest

from tests.wire.frame_cases import (
    ANSWERED,
    CLOSED,
    CONNECTION,
    FINE,
    FIRST,
    LONG,
    MALFORMED,
    NOBODY,
    OPEN,
    PROTOCOL,
    REFUSED,
    REFUSED_BESIDE,
    STREAM,
    STREAM_OF,
)
from tests.wire.raw_h2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    WINDOW_UPDATE,
    RawH2,
    block,
    frame,
    headers,
    setting,
    u32,
)  # fmt: skip
from tests.wire.rig import Rig


@pytest.mark.parametrize("case", CONNECTION)
def test_the_connection_ends_with_the_right_code(rig: Rig, case: str) -> None:
    said, code = CONNECTION[case]
    with RawH2(rig.gateway) as client:
        heard = client.send(said).until_closed()
        assert [found for _, found in heard.goaways] == [code]


@pytest.mark.parametrize("case", FIRST)
def test_a_connection_that_does_not_begin_by_the_book_ends(rig: Rig, case: str) -> None:
    with RawH2(rig.gateway, begins=False) as client:
        heard = client.send(FIRST[case]).until_closed()
        assert [found for _, found in heard.goaways] == [PROTOCOL]
    assert rig.upstream.seen == b""


@pytest.mark.parametrize("case", STREAM)
def test_the_stream_ends_with_the_right_code_and_the_connection_lives(rig: Rig, case: str) -> None:
    said, code = STREAM[case]
    with RawH2(rig.gateway) as client:
        client.send(said).until_over(1)
        while 1 not in client.heard.resets and client.hear():
            pass
        assert client.heard.resets == {1: code}
        client.send(headers(9)).until_over(9)
        assert (client.heard.statuses[9], client.heard.goaways) == (200, [])


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_head_is_told_and_its_stream_reset_C2(rig: Rig, case: str) -> None:
    is_method_only = case == "8.5 CONNECT with a path"
    with RawH2(rig.gateway) as client:
        client.send(headers(1, MALFORMED[case])).fence()
        assert client.heard.statuses == {1: 400}
        assert client.heard.resets == ({} if is_method_only else {1: PROTOCOL})
        assert b"malformed-request" in client.heard.bodies[1]
        client.send(headers(3)).until_over(3)
        assert (client.heard.statuses[3], client.heard.goaways) == (200, [])
    assert rig.upstream.seen.count(b"HTTP/1.1\r\n") == 1


@pytest.mark.parametrize("case", FINE)
def test_what_is_allowed_is_served(rig: Rig, case: str) -> None:
    with RawH2(rig.gateway) as client:
        client.send(FINE[case])
        stream = STREAM_OF.get(case, 1)
        client.until_over(stream)
        client.fence()
        found = client.heard.statuses[stream] in (200, 404), client.heard.resets, client.heard.goaways
        ends = [(1, 0)] if "GOAWAY" in case else []
        assert found == (True, REFUSED_BESIDE.get(case, {}), ends)


def test_the_preface_may_come_byte_by_byte(rig: Rig) -> None:
    with RawH2(rig.gateway, begins=False) as client:
        for byte in PREFACE + setting() + headers(1):
            client.send(bytes((byte,)))
        assert client.until_over(1).statuses == {1: 200}


def test_what_the_gateway_says_first(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        heard = client.fence()
        assert heard.settings == {3: 100, 4: 262_144, 6: 65_536, 8: 1, 9: 1}
        assert heard.updates == {0: (1 << 20) - 65_535}
        assert heard.acknowledged == 1


def test_each_setting_is_acknowledged_and_each_ping_answered_in_order_6_5_3(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        pings = [bytes(7) + bytes((at,)) for at in range(5)]
        client.send(b"".join(setting((3, at)) + frame(PING, payload=pings[at]) for at in range(5))).fence()
        assert (client.heard.acknowledged, client.heard.pongs[:5]) == (1 + 5, pings)


def test_a_window_of_one_lets_out_one_byte_at_a_time_6_9(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 1)) + headers(1))
        while client.heard.bodies.get(1) != b"o":
            assert client.hear()
        assert client.fence().bodies[1] == b"o"
        client.send(frame(WINDOW_UPDATE, 0, 1, u32(1))).until_over(1)
        assert (client.heard.bodies[1], client.heard.statuses) == (b"ok", {1: 200})


def test_a_window_below_nothing_has_to_be_filled_first_6_9_2(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n" + bytes(30)]
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 20)) + headers(1))
        while len(client.heard.bodies.get(1, b"")) < 20:
            assert client.hear()
        client.send(
            setting((4, 5)) + frame(WINDOW_UPDATE, 0, 1, u32(15))
        )  # 20 of 5 are used: 15 below nothing, then nothing
        assert len(client.fence().bodies[1]) == 20
        client.send(setting((4, 4)) + frame(WINDOW_UPDATE, 0, 1, u32(2)))
        assert len(client.fence().bodies[1]) == 21
        client.send(setting((4, 100))).until_over(1)
        assert len(client.heard.bodies[1]) == 30


def test_an_empty_answer_needs_no_window_6_9_1(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]
    with RawH2(rig.gateway) as client:
        assert client.send(setting((4, 0)) + headers(1)).until_over(1).statuses == {1: 200}
        assert client.heard.ended == {1}


def test_more_streams_than_allowed_are_refused_5_1_2(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 0)) + b"".join(headers(at) for at in range(1, 203, 2))).fence()
        assert client.heard.resets == {201: REFUSED}
        client.send(setting((4, 65_535)))
        for stream in range(1, 201, 2):
            client.until_over(stream)
        assert len(client.heard.ended) == 100


def test_frames_on_a_stream_that_the_gateway_reset_are_ignored(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.send(headers(1, (*POST, (b"connection", b"x")), OPEN)).until_over(1)
        client.send(
            frame(DATA, 0, 1, b"x") * 3 + headers(1) + frame(WINDOW_UPDATE, 0, 1, u32(1)) + headers(3)
        ).until_over(3)
        assert (client.heard.statuses[3], client.heard.resets, client.heard.goaways) == (200, {1: PROTOCOL}, [])


@pytest.mark.parametrize("late", [headers(1), frame(DATA, END_STREAM, 1, b"test"), frame(DATA, 0, 1)])
def test_a_head_or_DATA_on_a_stream_that_has_ended_ends_the_connection_5_1(rig: Rig, late: bytes) -> None:
    with RawH2(rig.gateway) as client:
        client.send(headers(1)).until_over(1)
        heard = client.send(late).until_closed()
        assert (heard.goaways, heard.resets) == ([(1, CLOSED)], {})


@pytest.mark.parametrize("case", ANSWERED)
def test_what_comes_behind_an_early_answer_is_judged_as_before_it(rig: Rig, case: str) -> None:
    """In two writes, the second behind the answer: a client that sends both at once meets either order."""
    head, late, code = ANSWERED[case]
    with RawH2(rig.gateway) as client:
        client.send(head).until_over(1)
        assert (client.heard.statuses, client.heard.resets) == ({1: 404}, {})
        client.send(late)
        while 1 not in client.heard.resets and client.hear():
            pass
        assert client.heard.resets == {1: code}
        client.send(headers(9)).until_over(9)
        assert (client.heard.statuses[9], client.heard.goaways) == (200, [])


@pytest.mark.parametrize("rest", [
    frame(DATA, 0, 1, b"a") + frame(DATA, END_STREAM, 1, b"b"),
    frame(DATA, END_STREAM | PADDED, 1, b"\x03hi" + bytes(3)),
    frame(DATA, 0, 1, b"hi") + headers(1, [(b"x-a", b"1")]),
])  # fmt: skip
def test_a_body_that_ends_behind_its_answer_is_no_trouble_8_1(rig: Rig, rest: bytes) -> None:
    with RawH2(rig.gateway) as client:
        client.send(headers(1, (*NOBODY, (b"content-length", b"2")), OPEN)).until_over(1)
        client.send(rest + headers(3)).until_over(3)
        assert client.fence().statuses == {1: 404, 3: 200}
        assert (client.heard.resets, client.heard.goaways) == ({}, [])


def test_a_client_that_goes_is_still_answered_6_8(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.send(headers(1) + headers(3) + frame(GOAWAY, 0, 0, u32(0, 0))).until_closed()
        assert client.heard.statuses == {1: 200, 3: 200}
        assert client.heard.goaways == [(3, 0)]


def test_a_shrunken_table_is_acknowledged_in_the_next_head_7541_4_2(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.decoder.max_allowed_table_size = 0  # the library refuses a head that does not say so
        client.send(setting((1, 0)) + headers(1) + headers(3)).until_over(3)
        client.until_over(1)
        assert client.heard.statuses == {1: 200, 3: 200}


def test_a_head_longer_than_a_frame_is_continued_and_refused_with_431(rig: Rig) -> None:
    raw = block((*GET, LONG, LONG))
    with RawH2(rig.gateway) as client:
        client.send(frame(HEADERS, END_STREAM, 1, raw[:16_000]) + frame(CONTINUATION, 0, 1, raw[16_000:32_000]))
        client.send(frame(CONTINUATION, END_HEADERS, 1, raw[32_000:])).fence()
        assert (client.heard.statuses, client.heard.resets) == ({1: 431}, {})
    assert rig.upstream.seen == b""
