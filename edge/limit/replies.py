"""How large an answer of the store may be, by its framing (RESP2 and RESP3), before anything is made of it.

The store is not trusted (design §3). A client library takes what it is sent: a line of a dozen bytes can ask it for a list of
fifty million places, and a string of any length is gathered until the call's time is over. So bytes pass here first, and an
answer that is larger than any we ask for ends the connection, with nothing of it read.

    +text -text :1 _ #t ,1.5 (1   a line                $n !n =n   n bytes behind the line
    *n ~n >n                      n values follow        %n |n      2n values follow
"""

from __future__ import annotations

import re

MAX_BYTES = 4 << 20
"""Of one answer: the registry asks for at most 256 entries, most of them of 2 KiB; of larger ones it asks for fewer."""
MAX_VALUES = 16_384
"""In one answer, however deep: the slots of a large cluster are the longest list."""
_MAX_LINE_BYTES = 65_536
_NUMBERS = re.compile(rb"[-:0-9\r\n]+")
"""What answers about limits are made of: hundreds of lines, which begin no list and no string, in one step."""
_COLON = ord(":")
_LINES = frozenset(b"+-:_#,(")
_BLOBS = frozenset(b"$!=")
_LISTS = frozenset(b"*~>")
_PAIRS = frozenset(b"%|")


class TooLarge(Exception):
    """The answer breaks a bound, or its framing is none."""


class Reply:
    """Follows one connection's answers, in whatever pieces they come. Owner: the connection."""

    __slots__ = ("_bytes", "_line", "_open", "_skip", "_values")

    def __init__(self) -> None:
        self._bytes = 0
        self._values = 0
        self._open = 1
        """Values that the present answer still lacks."""
        self._skip = 0
        """Bytes that belong to a string."""
        self._line = b""
        """The beginning of a line whose end has not come."""

    def take(self, raw: bytes) -> None:
        """The next bytes. Raises: TooLarge."""
        at, end = 0, len(raw)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
            else:
                step = self._run(raw, at) or self._read_line(raw, at)
            at += step
            self._bytes += step
            if self._bytes > MAX_BYTES:
                raise TooLarge(f"more than {MAX_BYTES} bytes")
            if not (self._open or self._skip):
                self._bytes = self._values = 0
                self._open = 1

    def _run(self, raw: bytes, at: int) -> int:
        """→ bytes of the numbers that come next; 0: something else does. Nothing is looked at twice."""
        if raw[at] != _COLON or self._line or self._open == 1:
            return 0
        found = _NUMBERS.match(raw, at)
        run = raw[at : raw.rfind(b"\n", at, found.end()) + 1] if found is not None else b""
        count = run.count(b"\n")
        if count > self._open:
            run = run[: len(run) - len(run.split(b"\n", self._open)[-1])]
            count = self._open
        self._open -= count
        self._values += count
        return len(run)

    def _read_line(self, raw: bytes, at: int) -> int:
        """→ bytes of the line, or of what has come of it."""
        stop = raw.find(b"\n", at) + 1
        if not stop:
            self._line += raw[at:]
            if len(self._line) > _MAX_LINE_BYTES:
                raise TooLarge("a line without an end")
            return len(raw) - at
        line, self._line = self._line + raw[at:stop], b""
        if len(line) > _MAX_LINE_BYTES:
            raise TooLarge("a line that is too long")
        self._begin(line)
        return stop - at

    def _begin(self, line: bytes) -> None:
        """One value's line."""
        kind = line[0]
        self._open -= 1
        self._values += 1
        if kind in _BLOBS:
            size = _number(line)
            self._skip = size + 2 if size >= 0 else 0  # -1: null
        elif kind in _LISTS or kind in _PAIRS:
            # An attribute (`|`) stands before the value that it is about.
            self._open += max(0, _number(line)) * (2 if kind in _PAIRS else 1) + (kind == 0x7C)
        elif kind not in _LINES:
            raise TooLarge("not RESP")
        if self._values + self._open > MAX_VALUES:
            raise TooLarge(f"more than {MAX_VALUES} values")


def _number(line: bytes) -> int:
    text = line[1:].strip()
    if not text.removeprefix(b"-").isdigit() or len(text) > 10:
        raise TooLarge("a length that is no number")
    return int(text)
