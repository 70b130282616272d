"""Answers as HPACK, read back by another library; frames as bytes."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.front import frames
from edge.front.frames import GO_ON, Code, Setting
from edge.model.http import RawField

DATE = b"Sat, 21 Nov 2026 15:47:53 GMT"
_NAMES = st.sampled_from([b"content-type", b"x-request-id", b"set-cookie", b"x-a", b"age", b"x-" + b"n" * 200])
_VALUES = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"a" * 126, b"a" * 127, b"a" * 128, b"a" * 300, b"a" * 20_000])
)


def read(block: bytes) -> list[tuple[bytes, bytes]]:
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    found = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    assert len(decoder.header_table.dynamic_entries) == 0
    return found


@given(
    status=st.sampled_from([200, 204, 206, 304, 400, 401, 404, 418, 429, 500, 503]),
    fields=st.lists(st.tuples(_NAMES, _VALUES), max_size=5),
    length=st.one_of(st.none(), st.integers(0, 10**14)),
)
def test_what_is_encoded_is_what_another_library_reads(status: int, fields: list[RawField], length: int | None) -> None:
    for _ in range(2):  # the second time from memory
        block = frames.answer_block(status, fields, length, DATE)
        expected = [(b":status", b"%d" % status), *fields, (b"date", DATE)]
        if length is not None and status not in (204, 304):
            expected.append((b"content-length", b"%d" % length))
        assert read(block) == expected


def test_a_date_of_the_upstream_stands_alone() -> None:
    assert read(frames.answer_block(200, [(b"date", b"then")], None, DATE)) == [
        (b":status", b"200"),
        (b"date", b"then"),
    ]


def test_the_go_ahead_is_100() -> None:
    assert read(frames.CONTINUE_BLOCK) == [(b":status", b"100")]


def test_more_fields_than_are_remembered_are_still_encoded() -> None:
    for at in range(1100):
        field = (b"x-a", b"%d" % at)
        assert read(frames.answer_block(200, [field], None, DATE))[1] == field


def test_a_whole_answer_is_two_frames_in_front_of_its_body() -> None:
    head = frames.answer_block(200, [(b"x-a", b"1")], 5, DATE)
    assert frames.whole_answer(7, head, 5) == (
        frames.headers(7, head, 16_384, is_end=False) + frames.frame_head(frames.DATA, frames.END_STREAM, 7, 5)
    )


@pytest.mark.parametrize(
    ("kind", "flags", "stream_id", "size", "code"),
    [
        (frames.PUSH_PROMISE, 0, 1, 4, Code.PROTOCOL_ERROR),
        (frames.SETTINGS, 0, 0, 12, GO_ON),
        (frames.SETTINGS, 0, 1, 6, Code.PROTOCOL_ERROR),
        (frames.SETTINGS, 0, 0, 5, Code.FRAME_SIZE_ERROR),
        (frames.SETTINGS, frames.ACK, 0, 6, Code.FRAME_SIZE_ERROR),
        (frames.SETTINGS, 0, 0, 6 * 33, Code.ENHANCE_YOUR_CALM),
        (frames.PING, 0, 0, 8, GO_ON),
        (frames.PING, 0, 1, 8, Code.PROTOCOL_ERROR),
        (frames.PING, 0, 0, 7, Code.FRAME_SIZE_ERROR),
        (frames.GOAWAY, 0, 0, 7, Code.FRAME_SIZE_ERROR),
        (frames.GOAWAY, 0, 0, 80, GO_ON),
        (frames.GOAWAY, 0, 3, 8, Code.PROTOCOL_ERROR),
        (frames.RST_STREAM, 0, 1, 3, Code.FRAME_SIZE_ERROR),
        (frames.WINDOW_UPDATE, 0, 0, 5, Code.FRAME_SIZE_ERROR),
        (frames.WINDOW_UPDATE, 0, 1, 4, GO_ON),
        (0x77, 0, 9, 0, GO_ON),
    ],
)
def test_a_frame_is_judged_by_its_form(kind: int, flags: int, stream_id: int, size: int, code: Code) -> None:
    assert frames.fault_in_form(kind, flags, stream_id, bytes(size)) == code


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (Setting.INITIAL_WINDOW_SIZE, 2**31 - 1, GO_ON),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 16_384, GO_ON),
        (Setting.MAX_FRAME_SIZE, 16_383, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 1 << 24, Code.PROTOCOL_ERROR),
        (Setting.ENABLE_PUSH, 1, GO_ON),
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.NO_RFC7540_PRIORITIES, 2, Code.PROTOCOL_ERROR),
        (0x99, 2**32 - 1, GO_ON),
    ],
)
def test_settings_are_judged(name: int, value: int, code: Code) -> None:
    assert frames.fault_in_setting(name, value) == code
