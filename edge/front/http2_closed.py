"""What is remembered of closed HTTP/2 streams: enough to tell a late frame from one that may not be (RFC 9113 §5.1)."""

from __future__ import annotations

from collections import deque

_MAX_RESETS = 256
_MAX_GAPS = 256
"""Of the newest. A stream of an older one counts as closed, which ends the connection as well, by another code."""


class ClosedStreams:
    """Owner: one session. Only resets and gaps are written down; a stream that is in neither ended as streams do."""

    __slots__ = ("_by_us", "_gaps")

    def __init__(self) -> None:
        self._by_us: dict[int, bool] = {}
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_MAX_GAPS)

    def note_reset(self, stream_id: int, *, by_us: bool) -> None:
        self._by_us[stream_id] = by_us
        if len(self._by_us) > _MAX_RESETS:
            del self._by_us[next(iter(self._by_us))]

    def note_gap(self, low: int, high: int) -> None:
        """The streams between two numbers can never be opened (RFC 9113 §5.1.1)."""
        self._gaps.append((low, high))

    def is_reset_by_us(self, stream_id: int) -> bool:
        """Frames may have been under way."""
        return self._by_us.get(stream_id, False)

    def is_reset_by_client(self, stream_id: int) -> bool:
        return not self._by_us.get(stream_id, True)

    def is_in_gap(self, stream_id: int) -> bool:
        return any(low < stream_id < high for low, high in self._gaps)
