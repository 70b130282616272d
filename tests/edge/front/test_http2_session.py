"""The protocol of a connection without a socket: windows, budgets, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.front import frames
from edge.front.frames import GO_ON, Code, Setting
from edge.front.heads import KnownBlocks
from edge.front.http2_session import (
    BUDGET,
    BUDGET_PER_S,
    CONNECTION_WINDOW_BYTES,
    MAX_STREAMS,
    RESET_COST,
    STREAM_WINDOW_BYTES,
    Session,
)
from tests.edge.front.played import BEGIN, OPEN, REQUEST, Played, begun
from tests.wire.raw_h2 import GET, block, frame, headers, setting, u32

# -- windows -----------------------------------------------------------------------------------------


def test_more_than_a_streams_window_resets_the_stream() -> None:
    played = begun()
    played.feed(headers(1, flags=OPEN))
    full = frame(frames.DATA, 0, 1, bytes(16_384))
    assert played.feed(full * 16) == GO_ON
    assert played.opened[1].receive_left == 0
    assert played.feed(frame(frames.DATA, 0, 1, b"x")) == GO_ON
    assert played.said == frames.rst_stream(1, Code.FLOW_CONTROL_ERROR)
    assert (played.opened[1].is_dropped, len(played.opened[1].body)) == (True, STREAM_WINDOW_BYTES)


def test_more_than_the_connections_window_ends_the_connection() -> None:
    played = begun()
    for at in range(1, 9, 2):
        played.feed(headers(at, flags=OPEN) + frame(frames.DATA, 0, at, bytes(16_384)) * 16)
    played.feed(headers(9, flags=OPEN))
    assert played.feed(frame(frames.DATA, 0, 9, b"x")) == Code.FLOW_CONTROL_ERROR


def test_a_window_opens_again_when_half_of_it_was_taken() -> None:
    played = begun()
    half = CONNECTION_WINDOW_BYTES // 2
    played.session.give_back(half - 1)
    assert played.said == b""
    played.session.give_back(1)
    assert played.said == frames.window_update(0, half)


def test_padding_is_given_back_at_once() -> None:
    played = begun()
    played.feed(headers(1, flags=OPEN) + frame(frames.DATA, frames.PADDED, 1, b"\x03hi" + bytes(3)))
    assert (played.opened[1].body, played.opened[1].given_back) == (b"hi", 4)
    assert played.opened[1].receive_left == STREAM_WINDOW_BYTES - 6


def test_bodies_of_streams_that_are_gone_do_not_use_up_the_connection() -> None:
    played = begun()
    played.feed(headers(1, flags=OPEN))
    played.session.cancel(1, Code.NO_ERROR)
    for _ in range(3 * CONNECTION_WINDOW_BYTES // 16_384):
        assert played.feed(frame(frames.DATA, 0, 1, bytes(16_384))) == GO_ON
    assert frames.window_update(0, CONNECTION_WINDOW_BYTES // 2) in played.said


def test_a_setting_moves_the_windows_of_open_streams() -> None:
    played = begun()
    played.feed(headers(1) + setting((Setting.INITIAL_WINDOW_SIZE, 10)) + headers(3))
    assert [stream.send_left for stream in played.opened.values()] == [10, 10]
    played.opened[1].send_left -= 10
    played.feed(setting((Setting.INITIAL_WINDOW_SIZE, 4)))
    assert [stream.send_left for stream in played.opened.values()] == [-6, 4]  # RFC 9113 §6.9.2: below zero
    assert played.session.has_window_grown


def test_streams_that_are_left_out_are_not_written_down_for_ever_C4() -> None:
    """A client that is answered may leave out as many as it likes: what it earns is more than it pays for the gap."""

    def after(late: int) -> Code:
        played = begun()
        for stream_id in range(3, 3 + 4 * 1000, 4):
            assert played.feed(headers(stream_id)) == GO_ON
            played.session.close(stream_id)
        return played.feed(frame(frames.DATA, 0, late, b"x"))

    assert after(3997) == Code.PROTOCOL_ERROR  # never opened, and never will be
    assert after(1) == Code.STREAM_CLOSED  # too long ago to tell from one that ended


def test_frames_are_as_long_as_the_client_takes_within_reason() -> None:
    played = begun()
    played.feed(setting((Setting.MAX_FRAME_SIZE, (1 << 24) - 1)))
    assert played.session.client_frame_bytes == 65_536
    played.feed(setting((Setting.MAX_FRAME_SIZE, 20_000)))
    assert played.session.client_frame_bytes == 20_000


def test_a_long_head_is_continued() -> None:
    played = begun()
    played.feed(headers(1))
    played.said  # noqa: B018 - what was said before
    played.session.head(1, bytes(40_000), is_end=True)
    pieces = [(1, 0x1, 16_384), (9, 0, 16_384), (9, 0x4, 7_232)]
    assert played.said == b"".join(frame(kind, flags, 1, bytes(size)) for kind, flags, size in pieces)


# -- heads that were met before ----------------------------------------------------------------------


def test_a_head_met_before_is_not_decoded_again_on_any_connection() -> None:
    first = Played(remembers=True)
    indexed = frame(frames.HEADERS, 0x5, 1, b"\x82\x87\x41\x01a\x84") + frame(
        frames.HEADERS, 0x5, 3, b"\x82\x87\xbe\x84"
    )
    assert first.feed(BEGIN + indexed) == GO_ON
    assert [known for _, _, known, _ in first.heads] == [None, None]
    second = Played(remembers=True)
    second.session = Session(second, first.blocks, lambda: 0.0, takes_tunnels=False)
    assert second.feed(BEGIN + indexed) == GO_ON
    assert [known for _, _, known, _ in second.heads] == [REQUEST, REQUEST]
    assert second.feed(frame(frames.HEADERS, 0x5, 5, b"\xbe\x82\x87\x84")) == GO_ON  # its table is the first's
    assert second.heads[-1][1][0] == (b":authority", b"a")


def known_to(played: Played) -> Played:
    """One that has met a head of `headers()` on its first stream, and lets a stream send what is left of its window."""
    assert played.feed(BEGIN + setting((Setting.INITIAL_WINDOW_SIZE, 7)) + headers(1)) == GO_ON
    played.said  # noqa: B018
    return played


@pytest.mark.parametrize("flags", [0x5, 0x5 | frames.PADDED, 0x5 | frames.HAS_PRIORITY])
def test_a_head_met_before_opens_its_stream_like_any_other(flags: int) -> None:
    played = known_to(Played(remembers=True))
    before = {0x5: b"", 0xD: b"\x00", 0x25: bytes(5)}[flags]
    assert played.feed(frame(frames.HEADERS, flags, 3, before + block(GET))) == GO_ON
    assert [(at, known) for at, _, known, _ in played.heads] == [(1, None), (3, REQUEST)]
    assert (played.session.streams[3], played.opened[3].send_left) == (played.opened[3], 7)
    assert (played.session.last_stream_id, played.session.whole_units) == (3, 4)


def test_a_head_met_before_opens_no_stream_that_another_could_not() -> None:
    for at, code in {1: Code.STREAM_CLOSED, 2: Code.PROTOCOL_ERROR}.items():
        played = known_to(Played(remembers=True))
        played.session.close(1)
        assert played.feed(headers(at)) == code
    played = known_to(Played(remembers=True))
    for at in range(3, 2 * MAX_STREAMS, 2):
        played.feed(headers(at))
    assert played.feed(headers(2 * MAX_STREAMS + 1)) == GO_ON
    assert played.said == frames.rst_stream(2 * MAX_STREAMS + 1, Code.REFUSED_STREAM)
    played = known_to(Played(remembers=True))
    played.session.is_final = True
    assert played.feed(headers(3)) == GO_ON
    assert list(played.session.streams) == [1]
    played = known_to(Played(remembers=True))
    assert (
        played.feed(frame(frames.HEADERS, 0, 3, block(GET)) + headers(5)) == Code.PROTOCOL_ERROR
    )  # amid another block
    played = Played(remembers=True)
    played.blocks = known_to(Played(remembers=True)).blocks
    played.session = Session(played, played.blocks, lambda: 0.0, takes_tunnels=False)
    assert played.feed(frames.PREFACE + headers(1)) == Code.PROTOCOL_ERROR  # before any SETTINGS


def test_streams_skipped_before_a_head_met_before_can_never_be_opened() -> None:
    played = known_to(Played(remembers=True))
    assert played.feed(headers(7)) == GO_ON
    assert played.feed(headers(5)) == Code.PROTOCOL_ERROR


def test_behind_the_last_number_of_all_no_stream_begins_by_its_reserved_bit_5_1_1() -> None:
    """RFC 9113 §4.1: the bit is ignored, so this is stream 1, which was left out long ago."""
    played = Played(remembers=True)
    assert played.feed(BEGIN + headers(3) + headers(frames.MAX_STREAM_ID)) == GO_ON
    assert played.feed(headers(1 << 31 | 1)) == Code.PROTOCOL_ERROR
    assert list(played.opened) == [3, frames.MAX_STREAM_ID]


def test_the_same_bytes_mean_another_thing_to_another_table() -> None:
    played = Played(remembers=True)
    played.feed(BEGIN + frame(frames.HEADERS, 0x5, 1, b"\x41\x01a") + frame(frames.HEADERS, 0x5, 3, b"\xbe"))
    played.feed(frame(frames.HEADERS, 0x5, 5, b"\x41\x01b") + frame(frames.HEADERS, 0x5, 7, b"\xbe"))
    assert [fields for _, fields, _, _ in played.heads] == [
        [(b":authority", value)] for value in (b"a", b"a", b"b", b"b")
    ]


def test_a_known_head_in_the_place_of_trailers_is_malformed() -> None:
    played = Played(remembers=True)
    played.feed(BEGIN + headers(1) + headers(3, flags=OPEN) + headers(3))
    assert (played.opened[3].failed, played.opened[3].is_request_ended) == (["trailer-pseudo-field"], False)


# -- budgets -----------------------------------------------------------------------------------------

BARREN = {
    "PING": frame(frames.PING, payload=bytes(8)),
    "an answered PING": frame(frames.PING, frames.ACK, payload=bytes(8)),
    "SETTINGS": setting(),
    "an acknowledgement": frame(frames.SETTINGS, frames.ACK),
    "a window of the connection": frame(frames.WINDOW_UPDATE, payload=u32(1)),
    "a window of a stream": frame(frames.WINDOW_UPDATE, 0, 1, u32(1)),
    "a window of a stream that is gone": frame(frames.WINDOW_UPDATE, 0, 3, u32(1)),
    "PRIORITY": frame(frames.PRIORITY, 0, 1, u32(3) + b"\x10"),
    "PRIORITY of an idle stream": frame(frames.PRIORITY, 0, 99, u32(3) + b"\x10"),
    "empty DATA": frame(frames.DATA, 0, 1),
    "padding": frame(frames.DATA, frames.PADDED, 1, b"\0"),
    "an unknown type": frame(0x77),
    "an unknown type on a stream": frame(0x10, 0, 1, b"?"),
    "GOAWAY": frame(frames.GOAWAY, payload=u32(0, 0)),
    "a reset of what is gone": frame(frames.RST_STREAM, 0, 3, u32(8)),
    "a small body of what is gone": frame(frames.DATA, 0, 3, b"x"),
    "a head of what is gone": headers(3),
}


@pytest.mark.parametrize("kind", BARREN)
def test_frames_that_carry_nothing_are_paid_for_C4(kind: str) -> None:
    played = begun()
    played.feed(headers(1, flags=OPEN) + headers(3))
    played.session.cancel(3, Code.CANCEL)
    for _ in range(BUDGET - 5):
        assert played.feed(BARREN[kind]) == GO_ON
    played.said  # noqa: B018
    assert Code.ENHANCE_YOUR_CALM in [played.feed(BARREN[kind]) for _ in range(10)]
    played.now_s = 10.0
    assert played.feed(BARREN[kind] * (5 * BUDGET_PER_S)) == GO_ON  # it is a rate, and no more than a rate


@pytest.mark.parametrize(
    "flood",
    [
        lambda at: headers(at) + frame(frames.RST_STREAM, 0, at, u32(8)),
        lambda at: headers(at) + frame(frames.WINDOW_UPDATE, 0, at, u32(0)),
        lambda at: headers(at) + frame(frames.WINDOW_UPDATE, 0, at, u32(2**31 - 1)),
        lambda at: headers(at) + frame(frames.DATA, 0, at, b"x"),
        lambda at: headers(at) + headers(at),
        lambda at: headers(at) + frame(frames.PRIORITY, 0, at, u32(at) + b"\x10"),
        lambda at: headers(at) + frame(frames.PRIORITY, 0, at, b"\x10"),
        lambda at: headers(at, flags=0x25, pad=u32(at) + b"\x10"),
    ],
)  # fmt: skip
def test_resets_cost_the_same_whoever_is_made_to_send_them_CVE_2023_44487_CVE_2025_8671(flood: object) -> None:
    played = begun()
    ends = [played.feed(flood(at)) for at in range(1, 2 * (BUDGET // RESET_COST) + 10, 2)]  # type: ignore[operator]
    assert set(ends[: BUDGET // RESET_COST - 1]) == {GO_ON}
    assert Code.ENHANCE_YOUR_CALM in ends
    assert not played.session.streams


def test_a_hundred_resets_a_second_are_cut_and_five_are_not() -> None:
    fast, slow = begun(), begun()
    ends: dict[int, list[Code]] = {100: [], 5: []}
    for played, per_s in ((fast, 100), (slow, 5)):
        for at in range(1, 2 * 30 * per_s, 2):
            played.now_s += 1 / per_s
            ends[per_s].append(played.feed(headers(at) + frame(frames.RST_STREAM, 0, at, u32(8))))
    assert (Code.ENHANCE_YOUR_CALM in ends[100], set(ends[5])) == (True, {GO_ON})


def test_an_honest_client_is_never_short() -> None:
    """Two window updates and a priority for each answer, for ever."""
    played = begun()
    for at in range(1, 20_001, 2):
        said = headers(at) + frame(frames.WINDOW_UPDATE, payload=u32(9)) + frame(frames.WINDOW_UPDATE, 0, at, u32(9))
        assert played.feed(said) == GO_ON
        played.session.close(at)


def test_heads_that_nobody_met_before_are_paid_for_by_the_byte() -> None:
    played = begun()
    large = block([*GET, *((b"x-%d" % at, b"a" * 120) for at in range(110))])
    ends = []
    for at in range(1, 200, 2):
        ends.append(played.feed(frame(frames.HEADERS, 0x5, at, large)))
        played.session.cancel(at, Code.CANCEL)
    assert ends.index(Code.ENHANCE_YOUR_CALM) == BUDGET // (len(large) // 512)


def test_what_is_kept_of_streams_that_are_gone_is_bounded() -> None:
    played = begun()
    for at in range(1, 4001, 2):
        played.now_s += 1
        assert played.feed(headers(at) + frame(frames.RST_STREAM, 0, at, u32(8))) == GO_ON
    assert played.feed(frame(frames.DATA, 0, 3999, b"x")) == GO_ON
    assert played.said.endswith(frames.rst_stream(3999, Code.STREAM_CLOSED))
    assert played.feed(headers(1)) == Code.STREAM_CLOSED  # forgotten how it ended, not that it was there


# -- offers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes_tunnels", [True, False])
def test_extended_connect_is_offered_only_to_be_taken(takes_tunnels: bool) -> None:
    session = Session(Played(), KnownBlocks(), lambda: 0.0, takes_tunnels=takes_tunnels)
    first = bytes(session.out[0])
    assert (u32(1)[2:] in first and b"\x00\x08\x00\x00\x00\x01" in first) is takes_tunnels


def test_behind_the_last_goaway_no_stream_is_opened() -> None:
    played = begun()
    played.session.is_final = True
    assert played.feed(headers(1) + headers(3)) == GO_ON
    assert played.heads == []


# -- any bytes ---------------------------------------------------------------------------------------

_STREAMS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2, 2**31 - 1, 2**32 - 1])
_PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [block(GET), b"\x82\x87\x84\x41\x01a", bytes(8), u32(1), u32(2**31 - 1), u32(0), bytes(5), bytes(6)]
    ),
)
_FRAMES = st.builds(
    lambda kind, flags, stream, payload: frame(kind, flags, stream, payload),
    st.integers(0, 11), st.sampled_from([0, 1, 4, 5, 5, 8, 13, 32, 37, 45, 255]), _STREAMS, _PAYLOADS,
)  # fmt: skip
_HEADS = st.builds(
    lambda at, flags: headers(at, flags=flags), st.sampled_from([1, 3, 5, 7, 9]), st.sampled_from([0, 1, 4, 5])
)
_TALKS = st.lists(st.one_of(_FRAMES, _HEADS, st.binary(max_size=12)), max_size=12)


@given(talk=_TALKS, cuts=st.lists(st.integers(1, 40), max_size=40))
@example(talk=[headers(1), headers(1)], cuts=[1] * 40)
def test_any_bytes_cut_anywhere_end_alike_and_never_raise(talk: list[bytes], cuts: list[int]) -> None:
    whole, cut = begun(), begun()
    data = b"".join(talk)
    ended = whole.feed(data)
    found, left = GO_ON, data
    for size in [*cuts, len(data) or 1]:
        piece, left = left[:size], left[size:]
        if not found:
            found = cut.feed(piece)
    assert (found, cut.said) == (ended, whole.said)
    assert cut.heads == whole.heads
    assert [stream.body for stream in cut.opened.values()] == [stream.body for stream in whole.opened.values()]
    assert len(whole.session.streams) <= MAX_STREAMS
    assert all(0 <= stream.receive_left <= STREAM_WINDOW_BYTES for stream in whole.opened.values())
