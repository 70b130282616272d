from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import checkpoint, note
from pki.tlog.errors import NoteMalformed, NoteUnverified

SIGNER = note.Signer("example.com/log", b"\x01" * 32)
ROOT = bytes(range(32))
HEAD = checkpoint.seal("example.com/log", 20852163, ROOT, SIGNER)


def test_head_is_written_as_the_specification_shows() -> None:
    assert HEAD.raw_note.startswith(b"example.com/log\n20852163\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n")


def test_head_round_trips() -> None:
    assert checkpoint.verify(HEAD.raw_note, SIGNER.verifier) == HEAD


def test_head_of_another_log_is_refused_even_when_signed_by_the_key() -> None:
    other = checkpoint.seal("example.com/other", 1, ROOT, SIGNER)
    with pytest.raises(NoteUnverified):
        checkpoint.verify(other.raw_note, SIGNER.verifier)


def test_head_of_another_key_is_refused() -> None:
    with pytest.raises(NoteUnverified):
        checkpoint.verify(HEAD.raw_note, note.Signer("example.com/log", b"\x02" * 32).verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n1\nroot\n",
        "log\n1\n",
        "log\n01\n{}\n",
        "log\n+1\n{}\n",
        "log\n-1\n{}\n",
        "log\n1 \n{}\n",
        "log\n١\n{}\n",
        "log\n9223372036854775808\n{}\n",
        "log\n1\n{}",
        "log\n1\n{}\nextension\n",
        "log\n1\nAAEC\n",
        "log\n1\n\n",
        "log\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
    ],
)
def test_anything_but_the_one_spelling_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        checkpoint.parse(text.format("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").encode())


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(NoteMalformed):
        checkpoint.parse(b"\xff\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, checkpoint.MAX_SIZE), st.binary(min_size=32, max_size=32))
def test_every_head_reads_as_it_was_sealed(size: int, root: bytes) -> None:
    raw = checkpoint.seal("a", size, root, note.Signer("a", b"\x01" * 32)).raw_note
    assert checkpoint.parse(note.split(raw)[0]) == ("a", size, root)
