from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import checkpoint, merkle, note, proof
from pki.tlog.errors import NoteMalformed, NoteUnverified, ProofInvalid

SIGNER = note.Signer("example.com/log", b"\x01" * 32)
ENTRIES = [b"zero", b"one", b"two", b"three", b"four"]
LEAVES = merkle.leaf_hashes(ENTRIES)
HEAD = checkpoint.seal("example.com/log", 5, merkle.root(LEAVES), SIGNER)


def _node(height: int, index: int) -> bytes:
    return merkle.root(LEAVES[index << height : (index + 1) << height])


PROOF = proof.TlogProof(2, tuple(merkle.inclusion_proof(2, 5, _node)), HEAD.raw_note, b"extra \x00 facts")
RAW = PROOF.encode()


@pytest.mark.parametrize("extra", [None, b"", b"extra"])
def test_proof_round_trips(extra: bytes | None) -> None:
    given_ = replace(PROOF, extra=extra)
    assert proof.parse(given_.encode()) == given_


def test_proof_proves_its_entry_and_no_other() -> None:
    assert proof.parse(RAW).verify(b"two", SIGNER.verifier) == HEAD
    for entry in (b"three", b"", b"two "):
        with pytest.raises(ProofInvalid):
            PROOF.verify(entry, SIGNER.verifier)


def test_proof_of_another_key_s_log_is_refused() -> None:
    with pytest.raises(NoteUnverified):
        PROOF.verify(b"two", note.Signer("example.com/log", b"\x02" * 32).verifier)


def test_proof_with_a_changed_head_is_refused() -> None:
    with pytest.raises(NoteUnverified):
        replace(PROOF, raw_checkpoint=HEAD.raw_note.replace(b"\n5\n", b"\n6\n")).verify(b"two", SIGNER.verifier)


@pytest.mark.parametrize("index", [0, 3, 5, 2**62])
def test_proof_with_another_index_is_refused(index: int) -> None:
    with pytest.raises(ProofInvalid):
        replace(PROOF, index=index).verify(b"two", SIGNER.verifier)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n\n",
        RAW.replace(b"@v1", b"@v2"),
        RAW.replace(b"index 2", b"index 02"),
        RAW.replace(b"index 2", b"index -2"),
        RAW.replace(b"index 2", b"index  2"),
        RAW.replace(b"index 2\n", b""),
        RAW.replace(b"extra ", b"extra  "),
        RAW.replace(b"extra ZX", b"extra !!"),
        RAW.replace(b"extra ", b"other "),
        RAW.replace(b"index 2", b"index 2\nAAAA"),
        RAW.replace(b"\n\n", b"\n", 1).replace(b"\n\n", b"\n"),
        RAW.replace(b"\n", b"\r\n"),
        RAW[:-1],
        RAW.replace(b"index 2", b"index 2\n" + b"\n".join([b"A" * 43 + b"="] * 64)),
        RAW.replace("—".encode(), b"\xff"),
        RAW.replace(b"extra ", b"extra " + b"A" * (1 << 16)),
        RAW + b"x" * ((1 << 16) + 1) + b"\n\n",
        RAW.replace(b"index 2", "index ٢".encode()),
        b"x" * (proof.MAX_PROOF_BYTES + 1),
    ],
)
def test_anything_but_the_one_spelling_is_refused(raw: bytes) -> None:
    with pytest.raises(NoteMalformed):
        proof.parse(raw)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.binary(max_size=3))
def test_changed_bytes_give_a_proof_or_our_error(place: int, inserted: bytes) -> None:
    try:
        found = proof.parse(RAW[:place] + inserted + RAW[place + 1 :])
    except NoteMalformed:
        return
    assert proof.parse(found.encode()) == found
