"""Published SPIFFE IDs (spiffe/go-spiffe): what to accept, what to refuse."""

from __future__ import annotations

import pytest

from pki.errors import SpiffeIdError
from pki.spiffe import SpiffeId
from tests.vectors.place import load

CASES = load("spiffe-id.json", {})


def test_every_good_id_is_accepted_and_printed_back() -> None:
    assert CASES["accept"]
    assert [str(SpiffeId.parse(text)) for text in CASES["accept"]] == CASES["accept"]


def test_every_bad_id_is_refused() -> None:
    assert CASES["reject"]
    for text in CASES["reject"]:
        with pytest.raises(SpiffeIdError):
            SpiffeId.parse(text)
