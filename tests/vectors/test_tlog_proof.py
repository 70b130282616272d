"""The syntax cases of C2SP tlog-proof."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pki.tlog import proof
from pki.tlog.errors import NoteMalformed
from tests.vectors.place import VECTORS

FILE = VECTORS / "tlog-proof-syntax.json"
SUITE: dict[str, Any] = json.loads(FILE.read_bytes()) if FILE.exists() else {}


@pytest.mark.parametrize("case", SUITE.get("must_reject", []), ids=lambda case: str(case["name"]))
def test_malformed_proof_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(NoteMalformed):
        proof.parse(case["proof"].encode())


@pytest.mark.parametrize("case", SUITE.get("syntax_ok", []), ids=lambda case: str(case["name"]))
def test_well_formed_proof_is_read(case: dict[str, Any]) -> None:
    found = proof.parse(case["proof"].encode())
    assert (found.index, len(found.hashes)) == (case["index"], case["hashes"])
    assert found.encode() == case["proof"].encode()
