"""Published SPIFFE IDs (spiffe/go-spiffe): what to accept, what to refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pki.errors import SpiffeIdError
from pki.spiffe import SpiffeId

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / os.environ.get("EDGE_VECTORS", "../shared/vectors")
CASES = json.loads((VECTORS / "spiffe-id.json").read_bytes())


def test_every_good_id_is_accepted_and_printed_back() -> None:
    assert CASES["accept"]
    assert [str(SpiffeId.parse(text)) for text in CASES["accept"]] == CASES["accept"]


def test_every_bad_id_is_refused() -> None:
    assert CASES["reject"]
    for text in CASES["reject"]:
        with pytest.raises(SpiffeIdError):
            SpiffeId.parse(text)
