"""JSON with one reading: what two parsers could understand differently is refused (RFC 8259 §4, RFC 7515 §4).

UTF-8 without byte order mark, no duplicate member at any depth, no NaN or Infinity, bounded depth.
"""

from __future__ import annotations

import json
from typing import Any


def parse(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises: ValueError.
    """
    try:
        # Decoded here: given bytes, `json` would also take UTF-16, UTF-32 and a byte order mark.
        return _decode(raw.decode("utf-8"))
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` with hooks makes a decoder and its scanner each time, which costs more than a token's claims do.
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode
