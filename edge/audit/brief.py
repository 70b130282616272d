"""One leaf as one line for a terminal, and as JSON for a program.

    1234  2026-11-21T09:40:00.123456Z  success  200  GET localhost /orders/**  orders-read  0.4 ms  18a7…
    1235  2026-11-21T09:40:00.201000Z  failure  403  POST localhost /orders/**  forbidden  0.1 ms  18a8…

A leaf is read by people who look for an attack, so nothing in it may steer their terminal: what is not printable ASCII is
escaped, whoever wrote the leaf.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def line(index: int, entry: bytes) -> str:
    """The leaf in short; one that is not a JSON object is shown as it is."""
    fields = _fields(entry)
    if fields is None:
        return f"{index:>8}  {_safe(entry.decode('ascii', 'backslashreplace'))}"
    action = fields.get("event.action")
    what = [fields.get(name) for name in ("http.request.method", "url.domain", "url.template")]
    if action != "request":
        what = [action, fields.get("source.prefix"), fields.get("count")]
    duration = fields.get("event.duration")
    cells = [
        fields.get("@timestamp"),
        fields.get("event.outcome"),
        fields.get("http.response.status_code"),
        " ".join(str(each) for each in what if each is not None),
        fields.get("event.reason") or ",".join(map(str, _list(fields.get("policy.ids")))),
        f"{duration / 1e6:.1f} ms" if isinstance(duration, int) else None,
        fields.get("event.id"),
    ]
    return f"{index:>8}  " + "  ".join(_safe(str(each)) for each in cells if each not in (None, ""))


def document(index: int, entry: bytes) -> str:
    """`{"index": …, "record": {…}}`, or `"raw"` in hex for a leaf that is not a JSON object."""
    fields = _fields(entry)
    if fields is None:
        return json.dumps({"index": index, "raw": entry.hex()})
    return json.dumps({"index": index, "record": fields})


def _fields(entry: bytes) -> Mapping[str, object] | None:
    try:
        fields = json.loads(entry)
    except (ValueError, RecursionError):  # a leaf is not trusted to be one of ours
        return None
    return fields if isinstance(fields, dict) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _safe(text: str) -> str:
    return text.translate(_UNPRINTABLE).encode("ascii", "backslashreplace").decode()
