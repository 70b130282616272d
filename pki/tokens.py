"""One-time enrolment tokens: how one is spelled and how it is remembered.

    edge-enrol-<43 characters of base64url: 256 random bits>

The authority keeps the SHA-256 of the whole text and never the text: who reads its record cannot enrol. A fast hash is
enough, since nobody guesses 256 bits. The prefix makes a token that leaked into a repository or a log easy to find.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256

RANDOM_BYTES = 32
_PREFIX = "edge-enrol-"
_TOKEN = re.compile(r"edge-enrol-[A-Za-z0-9_-]{43}\Z")


def spell(random: bytes) -> str:
    """The token of 32 random bytes."""
    assert len(random) == RANDOM_BYTES
    return _PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def digest(token: str) -> str | None:
    """What is remembered of a token (hex); None for a text that no token looks like."""
    return sha256(token.encode()).hexdigest() if _TOKEN.match(token) else None
