"""The rule by which a verifier refuses a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge.verify import RULES, AssertionRefused, Presented, Verifier
from tests.edge.verify.mesh import (
    mesh,
)

BOUND: dict[str, Any] = {
    "jti": "D1",
    "request": {"method": "GET", "authority": "api.example.com", "target": "/orders/7?a=1"},
}
HOST = ((b"host", b"api.example.com"), (b"x-request-id", b"D1"))


def rule(run: Callable[[], object]) -> str:
    with pytest.raises(AssertionRefused) as caught:
        run()
    assert caught.value.status == RULES[caught.value.rule][0]
    return caught.value.rule


def judged(request: Presented, verifier: Verifier | None = None, *, later_s: float = 0, peer: str | None = None) -> str:
    """The rule that a request breaks."""
    now_ns = mesh().now_ns + int(later_s * 1e9)
    return rule(lambda: (verifier or mesh().verifier()).check(request, now_ns, peer))
