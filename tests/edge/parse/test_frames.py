"""WebSocket frames: what may pass, what is a violation and of which kind, and that pieces of bytes change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.model.websocket import WebSocketBounds
from edge.parse.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PIECE_BYTES,
    PING,
    PONG,
    TEXT,
    ControlPace,
    Frame,
    FrameReader,
    Violation,
    closing,
    encode,
    masked,
)

KEY = b"\x37\xfa\x21\x3d"
BOUNDS = WebSocketBounds(max_message_bytes=1000, max_message_frames=4)


def read(raw: bytes, *, is_masked: bool = False, size: int = 0, bounds: WebSocketBounds = BOUNDS) -> list[object]:
    """Everything that a reader gives for `raw`, fed in pieces of `size` (0: whole)."""
    reader = FrameReader(bounds, is_masked=is_masked)
    step = size or max(1, len(raw))
    found: list[object] = []
    for at in range(0, len(raw), step):
        found += reader.feed(raw[at : at + step])
    return found


EXAMPLES = [  # RFC 6455 §5.7
    (False, "810548656c6c6f", [Frame(TEXT, b"Hello")]),
    (True, "818537fa213d7f9f4d5158", [Frame(TEXT, b"Hello")]),
    (False, "010348656c80026c6f", [Frame(TEXT, b"Hel", False), Frame(CONTINUATION, b"lo")]),
    (False, "890548656c6c6f", [Frame(PING, b"Hello")]),
    (True, "8a8537fa213d7f9f4d5158", [Frame(PONG, b"Hello")]),
    (False, "827e0100" + "00" * 256, [Frame(BINARY, bytes(256))]),
    (False, "8800", [Frame(CLOSE, b"")]),
    (False, "880203e8", [Frame(CLOSE, b"\x03\xe8")]),
]


@pytest.mark.parametrize(("is_masked", "raw", "expected"), EXAMPLES)
@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_examples_of_the_rfc_are_read_however_they_come(
    is_masked: bool, raw: str, expected: list[Frame], size: int
) -> None:
    assert read(bytes.fromhex(raw), is_masked=is_masked, size=size) == expected


VIOLATIONS: dict[str, tuple[str, int, str]] = {
    "first reserved bit (compression)": ("c100", 1002, "frame-reserved-bits"),
    "second reserved bit": ("a100", 1002, "frame-reserved-bits"),
    "third reserved bit": ("9100", 1002, "frame-reserved-bits"),
    "reserved bit of a control frame": ("c900", 1002, "frame-reserved-bits"),
    **{f"opcode {code:x}": (f"8{code:x}00", 1002, "frame-opcode") for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "masked by a server": ("818000000000", 1002, "frame-mask"),
    "ping in fragments": ("0900", 1002, "frame-control-fragmented"),
    "close in fragments": ("0800", 1002, "frame-control-fragmented"),
    "ping of 126": ("897e007e", 1002, "frame-control-length"),
    "close of 64 bits": ("887f", 1002, "frame-control-length"),
    "nothing to continue": ("8000", 1002, "frame-continuation"),
    "text within a message": ("01016181026161", 1002, "frame-continuation"),
    "binary within a message": ("01016182026161", 1002, "frame-continuation"),
    "continuation behind the end": ("810161800161", 1002, "frame-continuation"),
    "125 in 16 bits": ("827e007d", 1002, "frame-length"),
    "65535 in 64 bits": ("827f000000000000ffff", 1002, "frame-length"),
    "negative length": ("827f8000000000000000", 1002, "frame-length"),
    "one frame too large": ("827e03e9", 1009, "message-size"),
    "huge": ("827f7fffffffffffffff", 1009, "message-size"),
    "two frames too large": ("027e03e8" + "00" * 1000 + "8001", 1009, "message-size"),
    "too many frames": ("0200" + "0000" * 3 + "8000", 1009, "message-frames"),
    "no text": ("8101ff", 1007, "text-not-utf8"),
    "overlong text": ("8102c080", 1007, "text-not-utf8"),
    "a surrogate": ("8103eda080", 1007, "text-not-utf8"),
    "beyond Unicode": ("8104f4908080", 1007, "text-not-utf8"),
    "half a character at the end": ("8101c3", 1007, "text-not-utf8"),
    "half a character at the end of fragments": ("0101c38000", 1007, "text-not-utf8"),
    "a character broken by the next fragment": ("0101c3800161", 1007, "text-not-utf8"),
    "a close of one byte": ("880103", 1002, "close-code"),
    **{
        f"close code {code}": (f"8802{code:04x}", 1002, "close-code")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a reason that is no text": ("880303e8ff", 1007, "close-reason-not-utf8"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
@pytest.mark.parametrize("size", [0, 1])
def test_a_violation_is_the_last_that_is_read(case: str, size: int) -> None:
    raw, code, rule = VIOLATIONS[case]
    found = read(bytes.fromhex(raw) + bytes.fromhex("810161"), size=size)
    assert found[-1] == Violation(code, rule)
    assert not any(isinstance(each, Violation) for each in found[:-1])


def test_a_client_that_does_not_mask_is_refused_by_its_first_two_bytes() -> None:
    assert read(b"\x81\x05", is_masked=True) == [Violation(1002, "frame-mask")]


def test_a_length_is_judged_before_a_byte_of_the_payload_came() -> None:
    assert read(bytes.fromhex("82fe03e9") + KEY, is_masked=True) == [Violation(1009, "message-size")]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_codes_that_may_be_sent_pass(code: int) -> None:
    frame = Frame(CLOSE, code.to_bytes(2, "big") + "zu spät".encode())
    assert read(encode(frame, None)) == [frame]
    assert frame.close_code == code


def test_a_close_without_a_code_means_1005() -> None:
    assert Frame(CLOSE, b"").close_code == 1005


def test_nothing_is_read_behind_a_close() -> None:
    assert read(bytes.fromhex("880203e8") + b"\xff\xff", size=0) == [Frame(CLOSE, b"\x03\xe8")]
    assert read(bytes.fromhex("880203e8") + b"\xff\xff", size=1) == [Frame(CLOSE, b"\x03\xe8")]


def test_control_frames_pass_between_fragments() -> None:
    raw = bytes.fromhex("0101c3" + "890161" + "8001bc")  # ü cut in two, a ping between
    assert read(raw) == [Frame(TEXT, b"\xc3", False), Frame(PING, b"a"), Frame(CONTINUATION, b"\xbc")]


def test_of_a_long_frame_pieces_pass_and_little_is_held() -> None:
    reader = FrameReader(WebSocketBounds(), is_masked=True)
    payload = bytes(range(256)) * 256
    raw = encode(Frame(BINARY, payload), KEY)
    frames: list[Frame] = []
    for at in range(0, len(raw), 1000):
        found = reader.feed(raw[at : at + 1000])
        frames += [each for each in found if isinstance(each, Frame)]
    assert b"".join(frame.payload for frame in frames) == payload
    assert [frame.opcode for frame in frames] == [BINARY] + [CONTINUATION] * (len(frames) - 1)
    assert [frame.is_final for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert all(len(frame.payload) >= PIECE_BYTES for frame in frames[:-1])


def test_a_frame_that_came_in_one_read_stays_one_frame() -> None:
    assert read(encode(Frame(BINARY, bytes(500_000)), None), bounds=WebSocketBounds()) == [
        Frame(BINARY, bytes(500_000))
    ]


def test_text_is_judged_before_its_frame_is_whole() -> None:
    reader = FrameReader(WebSocketBounds(), is_masked=False)
    head = b"\x81\x7f" + (1 << 20).to_bytes(8, "big")
    assert reader.feed(head + b"a" * PIECE_BYTES + b"\xff") == [Violation(1007, "text-not-utf8")]


payloads = st.binary(max_size=300)
texts = st.text(max_size=100).map(lambda text: text.encode())
messages = st.one_of(
    st.tuples(st.just(TEXT), texts), st.tuples(st.just(BINARY), payloads), st.tuples(st.just(PING), payloads)
)


@given(st.lists(messages, max_size=5), st.sampled_from([None, KEY, b"\0\0\0\0"]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again_however_it_is_cut(
    sent: list[tuple[int, bytes]], key: bytes | None, size: int
) -> None:
    frames = [Frame(opcode, payload[:125] if opcode == PING else payload) for opcode, payload in sent]
    raw = b"".join(encode(frame, key) for frame in frames)
    assert read(raw, is_masked=key is not None, size=size, bounds=WebSocketBounds()) == frames


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_frames_or_one_violation_and_the_same_byte_by_byte(
    raw: bytes, is_masked: bool, size: int
) -> None:
    found = read(raw, is_masked=is_masked)
    assert all(isinstance(each, Frame) for each in found[:-1])
    assert found == read(raw, is_masked=is_masked, size=size)


@given(st.binary(max_size=70) | st.binary(min_size=510, max_size=700), st.binary(min_size=4, max_size=4))
@settings(max_examples=50)
def test_masking_is_exclusive_or_and_its_own_inverse(payload: bytes, key: bytes) -> None:
    assert masked(payload, key) == bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert masked(masked(payload, key), key) == payload


@pytest.mark.parametrize(("size", "head"), [(125, "827d"), (126, "827e007e"), (65_535, "827effff"),
                                            (65_536, "827f0000000000010000")])  # fmt: skip
def test_lengths_are_written_in_the_shortest_form(size: int, head: str) -> None:
    assert encode(Frame(BINARY, bytes(size)), None) == bytes.fromhex(head) + bytes(size)


def test_our_own_close() -> None:
    assert read(encode(closing(1008, "credential expired"), None)) == [Frame(CLOSE, b"\x03\xf0credential expired")]


def test_the_pace_allows_so_many_at_once_and_so_many_a_second() -> None:
    pace = ControlPace(0.0)
    assert [pace.take(5, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [pace.take(5, 0.4) for _ in range(3)] == [True, True, False]
    assert sum(pace.take(5, 100.0) for _ in range(9)) == 5


def test_no_more_is_judged_at_once_than_was_asked_for() -> None:
    """What is left waits for its turn, and nothing of it is lost, be it followed by more or not."""
    reader = FrameReader(WebSocketBounds(), is_masked=False)
    raw = [encode(Frame(PING, b"%d" % number), None) for number in range(5)]
    assert reader.feed(b"".join(raw[:4]), 2) == [Frame(PING, b"0"), Frame(PING, b"1")]
    assert reader.is_behind
    assert reader.feed(raw[4], 2) == [Frame(PING, b"2"), Frame(PING, b"3")]
    assert reader.is_behind
    assert reader.feed(b"", 2) == [Frame(PING, b"4")]
    assert not reader.is_behind
