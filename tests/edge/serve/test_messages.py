"""Frames between supervisor and worker."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.serve.messages import MAX_UP_BYTES, Channel, Decoder, FrameError, Kind, Note, decode_note, encode, encode_note

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.integers(1, 9))
def test_any_cutting_of_the_stream_gives_the_same_frames(frames: list[tuple[Kind, bytes]], step: int) -> None:
    stream = b"".join(encode(kind, payload) for kind, payload in frames)
    decoder = Decoder(MAX_UP_BYTES)
    received = [frame for at in range(0, len(stream), step) for frame in decoder.feed(stream[at : at + step])]
    assert received == frames


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_frames_or_our_error(stream: bytes) -> None:
    try:
        list(Decoder(1000).feed(stream))
    except FrameError:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        b"\0\0\0\0",
        (1001).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xfe",
    ],
    ids=["empty", "over the limit", "huge", "unknown kind"],
)
def test_impossible_frame_is_refused_before_its_payload_is_awaited(stream: bytes) -> None:
    with pytest.raises(FrameError):
        list(Decoder(1000).feed(stream))


def test_incomplete_frame_waits() -> None:
    assert list(Decoder(1000).feed(encode(Kind.COMMIT, b"abc")[:-1])) == []


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b'{"exit_code":"4"}', b'{"unheard_of":1}', b"\x80\x04N.", b'{"detail":1}'],
)
def test_upward_payload_that_is_not_a_note_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_note(payload)


def test_note_round_trips() -> None:
    note = Note(bundle_hash="ab", detail="x: ü", exit_code=4)
    (frame,) = Decoder(1000).feed(encode_note(Kind.FAILED, note))
    assert (frame[0], decode_note(frame[1])) == (Kind.FAILED, note)


def test_channel_never_blocks_on_a_worker_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        channel.send(Kind.PREPARE, bytes(4 << 20))
        assert not channel.is_flushed
        decoder = Decoder(8 << 20)
        frames: list[tuple[Kind, bytes]] = []
        while not frames:
            frames += decoder.feed(theirs.recv(1 << 20))
            channel.flush()
        assert (channel.is_flushed, frames[0][0], len(frames[0][1])) == (True, Kind.PREPARE, 4 << 20)
        channel.close()


def test_channel_tells_nothing_yet_from_gone() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    assert channel.receive() == []
    theirs.sendall(encode_note(Kind.SERVING, Note()))
    assert channel.receive() == [(Kind.SERVING, Note())]
    theirs.close()
    assert channel.receive() is None
    channel.send(Kind.DRAIN)  # to nobody: must not raise
    assert channel.is_flushed
    channel.close()
