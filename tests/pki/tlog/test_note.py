from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import note
from pki.tlog.errors import NoteMalformed, NoteUnverified

SIGNER = note.Signer("example.com/log", b"\x01" * 32)
OTHER = note.Signer("example.com/other", b"\x02" * 32)
TEXT = b"first line\n\nthird line\n"
NOTE = note.sign(TEXT, SIGNER)
LINE = NOTE.removeprefix(TEXT + b"\n")


def test_note_opens_with_its_key() -> None:
    opened = note.verify(NOTE, [OTHER.verifier, SIGNER.verifier])
    assert (opened.text, opened.verified_by, opened.unverified) == (TEXT, (SIGNER.verifier,), ())


def test_signatures_of_unknown_keys_are_ignored_but_listed() -> None:
    opened = note.verify(note.sign(TEXT, OTHER, SIGNER), [SIGNER.verifier])
    assert [line.name for line in opened.unverified] == ["example.com/other"]


def test_note_without_a_known_key_is_refused() -> None:
    for verifiers in ([], [OTHER.verifier]):
        with pytest.raises(NoteUnverified):
            note.verify(NOTE, verifiers)


def test_changed_text_is_refused_even_when_another_known_key_vouches() -> None:
    both = note.sign(TEXT, OTHER).replace(b"first", b"FIRST") + LINE
    with pytest.raises(NoteUnverified):
        note.verify(both, [OTHER.verifier, SIGNER.verifier])


def test_two_lines_of_one_known_key_are_refused() -> None:
    with pytest.raises(NoteMalformed):
        note.verify(NOTE + LINE, [SIGNER.verifier])


def test_same_name_with_another_key_is_an_unknown_key() -> None:
    impostor = note.Signer(SIGNER.verifier.name, b"\x03" * 32)
    with pytest.raises(NoteUnverified):
        note.verify(note.sign(TEXT, impostor), [SIGNER.verifier])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\n\n",
        TEXT,
        TEXT + b"\n",
        NOTE[:-1],
        NOTE + b"\n",
        NOTE + b"trailing",
        NOTE.replace(b"\n", b"\r\n"),
        NOTE.replace(b"first", b"fir\x00t"),
        NOTE.replace(b"first", b"fir\xfft"),
        NOTE.replace("—".encode(), b"-"),
        NOTE.replace("— ".encode(), "—  ".encode()),
        NOTE.replace(b"example.com/log", b""),
        NOTE.replace(b"example.com/log", b"example.com+log"),
        NOTE.replace(b"example.com/log", "example.com/\u00a0log".encode()),
        TEXT + b"\n" + LINE * 101,
        TEXT + "\n— name AAAA\n".encode(),
        TEXT + "\n— name AAAAA\n".encode(),
        TEXT + "\n— name AAAAAB==\n".encode(),
        b"x" * (note.MAX_NOTE_BYTES + 1),
    ],
)
def test_anything_but_the_one_spelling_is_refused(raw: bytes) -> None:
    with pytest.raises(NoteMalformed):
        note.verify(raw, [SIGNER.verifier])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_no_changed_byte_is_accepted(place: int, flip: int) -> None:
    changed = NOTE[:place] + bytes([NOTE[place] ^ flip]) + NOTE[place + 1 :]
    with pytest.raises((NoteMalformed, NoteUnverified)):
        note.verify(changed, [SIGNER.verifier])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(NOTE)), st.binary(max_size=6), st.integers(0, 6))
def test_any_bytes_are_a_note_or_malformed(place: int, inserted: bytes, dropped: int) -> None:
    raw = NOTE[:place] + inserted + NOTE[place + dropped :]
    try:
        text, signatures = note.split(raw)
    except NoteMalformed:
        return
    assert raw.startswith(text)
    assert len(signatures) >= 1


@pytest.mark.parametrize("text", [b"no newline", b"\xff\n", b"tab\t\n", b""])
def test_bad_text_is_not_signed(text: bytes) -> None:
    with pytest.raises(NoteMalformed):
        note.sign(text, SIGNER)


def test_keys_round_trip() -> None:
    assert note.Verifier.parse(str(SIGNER.verifier)) == SIGNER.verifier
    assert note.Signer.parse(SIGNER.encoded()).verifier == SIGNER.verifier


def test_a_signer_does_not_show_its_key_by_accident() -> None:
    assert b64encode(b"\x01" * 24).decode() not in repr(SIGNER)
    assert str(SIGNER.verifier) in repr(SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        SIGNER.encoded(),
        str(SIGNER.verifier) + "\n",
        str(SIGNER.verifier).replace("example.com/log", "example.com/lag"),
        str(SIGNER.verifier)[:-4],
        str(SIGNER.verifier).replace("+", "+0", 1),
    ],
)
def test_bad_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        note.Verifier.parse(text)


@pytest.mark.parametrize(
    "text", ["", str(SIGNER.verifier), SIGNER.encoded()[:-4], SIGNER.encoded().replace("com/log", "com/lag")]
)
def test_bad_signer_key_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        note.Signer.parse(text)


@pytest.mark.parametrize(("name", "seed"), [("", b"1" * 32), ("a b", b"1" * 32), ("a+b", b"1" * 32), ("a", b"1" * 31)])
def test_signer_of_a_bad_name_or_seed_is_refused(name: str, seed: bytes) -> None:
    with pytest.raises(NoteMalformed):
        note.Signer(name, seed)


def test_verifier_of_no_curve_point_refuses_signatures() -> None:
    with pytest.raises(NoteUnverified):
        note.Verifier("x", b"short").check(TEXT, b"s" * 64)
