"""What a refused caller is told: that he is (RFC 9457), and nothing of why. The rule is in the service's log."""

from __future__ import annotations

import json

_TITLES = {401: "Unauthorized", 403: "Forbidden"}


def refusal(status: int) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """(fields, body) for 401 or 403."""
    body = json.dumps({"type": "about:blank", "title": _TITLES[status], "status": status}).encode("ascii")
    fields: tuple[tuple[str, str], ...] = (
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    )
    if status == 401:  # RFC 9110 §15.5.2 asks for a challenge
        fields = (*fields, ("WWW-Authenticate", "Edge-Assertion"))
    return fields, body
