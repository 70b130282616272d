"""Durations as command lines spell them: `90s`, `10m`, `24h`, `3d`."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """Raises: ValueError, which argument parsers turn into a usage error."""
    found = _DURATION.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write 24h, 90m or 3d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
