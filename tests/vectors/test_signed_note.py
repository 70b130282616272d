"""Signed notes and verifier keys of Go's sumdb and C2SP, good and malformed."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from pki.tlog import checkpoint, note
from pki.tlog.errors import NoteMalformed, NoteUnverified
from tests.vectors.place import VECTORS

FILE = VECTORS / "signed-note.json"
SUITE: dict[str, Any] = json.loads(FILE.read_bytes()) if FILE.exists() else {}
REFUSALS = {"malformed": NoteMalformed, "invalid signature": NoteUnverified, "unknown key": NoteUnverified}


def _cases(part: str) -> list[Any]:
    return [pytest.param(case, id=case.get("name")) for case in SUITE.get(part, [])]


@pytest.mark.parametrize("case", _cases("open"))
def test_note_is_judged_as_published(case: dict[str, Any]) -> None:
    raw = case["note"].encode() if "note" in case else b64decode(case["note_base64"])
    keys = [note.Verifier.parse(key) for key in case["verifier_keys"]]
    if case["expect"] == "reject":
        with pytest.raises(REFUSALS[case["error"]]):
            note.verify(raw, keys)
        return
    opened = note.verify(raw, keys)
    assert [key.name for key in opened.verified_by] == case["verified_key_names"]
    assert len(opened.unverified) == case["unverified_signature_count"]


@pytest.mark.parametrize("text", SUITE.get("bad_verifier_keys", []))
def test_bad_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        note.Verifier.parse(text)


@pytest.mark.parametrize("text", SUITE.get("good_verifier_keys", []))
def test_good_verifier_key_is_printed_as_it_was_read(text: str) -> None:
    assert str(note.Verifier.parse(text)) == text


@pytest.mark.parametrize("case", SUITE.get("sign", []))
def test_signing_gives_the_published_bytes(case: dict[str, Any]) -> None:
    signer = note.Signer.parse(case["signer_key"])
    assert note.sign(case["text"].encode(), signer) == case["signed_note"].encode()


def test_the_head_of_the_go_checksum_database_reads_as_a_checkpoint() -> None:
    case = next(case for case in SUITE["open"] if case["name"] == "sumdb-checkpoint")
    origin, size, root = checkpoint.parse(note.split(case["note"].encode())[0])
    assert (origin, size, len(root)) == ("go.sum database tree", 35225469, 32)
