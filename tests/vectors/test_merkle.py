"""The proofs of transparency-dev/merkle, good and damaged, against our verification."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from pki.tlog import merkle
from pki.tlog.errors import ProofInvalid
from tests.vectors.place import VECTORS


def _cases(name: str) -> list[Any]:
    file = VECTORS / name
    return [pytest.param(case, id=case["name"]) for case in json.loads(file.read_bytes())] if file.exists() else []


def _hashes(encoded: list[str] | None) -> list[bytes]:
    return [b64decode(value) for value in encoded or []]


@pytest.mark.parametrize("case", _cases("merkle-inclusion.json"))
def test_inclusion_proof_is_judged_as_published(case: dict[str, Any]) -> None:
    leaf, root = b64decode(case["leafHash"]), b64decode(case["root"])
    if case["wantErr"]:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(case["leafIdx"], case["treeSize"], leaf, _hashes(case["proof"]), root)
    else:
        merkle.verify_inclusion(case["leafIdx"], case["treeSize"], leaf, _hashes(case["proof"]), root)


@pytest.mark.parametrize("case", _cases("merkle-consistency.json"))
def test_consistency_proof_is_judged_as_published(case: dict[str, Any]) -> None:
    sizes, roots = (case["size1"], case["size2"]), (b64decode(case["root1"]), b64decode(case["root2"]))
    if case["wantErr"]:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(*sizes, *roots, _hashes(case["proof"]))
    else:
        merkle.verify_consistency(*sizes, *roots, _hashes(case["proof"]))


def test_the_published_cases_were_found() -> None:
    assert (len(_cases("merkle-inclusion.json")), len(_cases("merkle-consistency.json"))) == (50, 55)
