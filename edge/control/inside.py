"""What a handler of the control plane may know of its worker. Callables, because a reload swaps what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Inside:
    """One worker, as its control plane sees it."""

    status: Callable[[], Facts]
    routes: Callable[[], list[Facts]]
    metrics: Callable[[], bytes]
    """Of all workers, as Prometheus text."""
    bundle: Callable[[], bytes]
    """PEM: the roots of the trust domain and the intermediates below them."""
