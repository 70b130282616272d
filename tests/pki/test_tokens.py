"""One-time tokens: one spelling, and nothing kept that could be used."""

from __future__ import annotations

from hashlib import sha256

import pytest

from pki.tokens import digest, spell

TOKEN = spell(bytes(range(32)))


def test_a_token_is_known_by_the_digest_of_its_text() -> None:
    assert TOKEN == "edge-enrol-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert digest(TOKEN) == sha256(TOKEN.encode()).hexdigest()


@pytest.mark.parametrize(
    "text", ["", "edge-enrol-", TOKEN[:-1], TOKEN + "A", TOKEN + "\n", " " + TOKEN, TOKEN.upper(), TOKEN[:-1] + "="]
)
def test_nothing_else_looks_like_one(text: str) -> None:
    assert digest(text) is None
