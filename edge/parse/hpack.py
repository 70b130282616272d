"""HPACK, the decoding half (RFC 7541): a header block and the table before it → its fields and the table behind it.

`Table` never changes; a block that adds nothing gives the same one back. So decoding is a function of its arguments, and
`front/heads` may remember what a block meant to a table: the same client asks the same thing again in the same bytes.

Laws:
- What is not exactly an encoding is refused, and the connection with it, because the two tables would differ from here on.
- The work is bounded by the block: what a few bytes unfold to is added up, and too much is refused (the HPACK bomb,
  CVE-2016-6581).
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import HeadersTooLarge, MalformedRequest
from edge.model.http import RawField
from edge.parse import huffman

TABLE_BYTES = 4096
"""The size a table has until something else is agreed (RFC 7540 §6.5.2); we never ask for another."""
MAX_LIST_BYTES = 65_536
"""Of a whole list as RFC 9113 §6.5.2 counts it. `parse.http2` answers 431 well before; above this the connection ends."""
_OVERHEAD = 32

_STATIC_TEXT = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|"
    ":status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    "content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|"
    "cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|"
    "last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|"
    "server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)


def _static() -> tuple[RawField, ...]:
    pairs = (line.partition(" ") for line in _STATIC_TEXT.split("|"))
    return ((b"", b""), *((name.encode("ascii"), value.encode("ascii")) for name, _, value in pairs))


STATIC: tuple[RawField, ...] = _static()
"""By index, from 1 (RFC 7541, Appendix A)."""
_FIRST_DYNAMIC = len(STATIC)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A dynamic table at one moment. Equal to itself only: `front/heads` looks blocks up by it."""

    entries: tuple[RawField, ...] = ()
    """The newest first."""
    size_bytes: int = 0
    limit_bytes: int = TABLE_BYTES
    """What the encoder last said it would use."""


EMPTY = Table()


def decode(table: Table, block: bytes) -> tuple[list[RawField], Table]:
    """The fields of a whole block in order, and the table behind it.

    Raises:
        MalformedRequest: not an encoding (COMPRESSION_ERROR, RFC 9113 §4.3).
        HeadersTooLarge: more than `MAX_LIST_BYTES`; the rest was not looked at.
    """
    reader = _Reader(table, block)
    fields: list[RawField] = []
    total_bytes = 0
    while reader.at < reader.end:
        field = reader.next_field()
        if field is None:
            if fields:
                raise MalformedRequest("hpack-resize-late")  # RFC 7541 §4.2
            continue
        fields.append(field)
        total_bytes += len(field[0]) + len(field[1]) + _OVERHEAD
        if total_bytes > MAX_LIST_BYTES:
            raise HeadersTooLarge("header-list")
    return fields, reader.table()


class _Reader:
    """A block being read. The table is copied at its first change."""

    __slots__ = ("_before", "_block", "_entries", "_is_changed", "_limit_bytes", "_size_bytes", "at", "end")

    def __init__(self, table: Table, block: bytes) -> None:
        self._block = block
        self.at = 0
        self.end = len(block)
        self._before = table
        self._entries: list[RawField] = list(table.entries)
        self._size_bytes = table.size_bytes
        self._limit_bytes = table.limit_bytes
        self._is_changed = False

    def table(self) -> Table:
        if not self._is_changed:
            return self._before
        return Table(tuple(self._entries), self._size_bytes, self._limit_bytes)

    def next_field(self) -> RawField | None:
        """The next field; None for a change of the table's size."""
        first = self._block[self.at]
        if first & 0x80:
            return self._entry(self._integer(0x7F))
        if first & 0x40:
            field = self._literal(0x3F)
            self._add(field)
            return field
        if first & 0x20:
            self._resize(self._integer(0x1F))
            return None
        return self._literal(0x0F)  # without indexing, or never to be indexed

    def _literal(self, mask: int) -> RawField:
        index = self._integer(mask)
        name = self._entry(index)[0] if index else self._string()
        return name, self._string()

    def _entry(self, index: int) -> RawField:
        if 0 < index < _FIRST_DYNAMIC:
            return STATIC[index]
        at = index - _FIRST_DYNAMIC
        if not 0 <= at < len(self._entries):
            raise MalformedRequest("hpack-index")
        return self._entries[at]

    def _integer(self, mask: int) -> int:
        """RFC 7541 §5.1; nothing that we take needs more than four bytes behind the prefix."""
        value = self._block[self.at] & mask
        self.at += 1
        if value < mask:
            return value
        for shift in (0, 7, 14, 21):
            if self.at >= self.end:
                break
            byte = self._block[self.at]
            self.at += 1
            value += (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedRequest("hpack-integer")

    def _string(self) -> bytes:
        if self.at >= self.end:
            raise MalformedRequest("hpack-string")
        is_huffman = self._block[self.at] & 0x80
        length = self._integer(0x7F)
        start, self.at = self.at, self.at + length
        if self.at > self.end:
            raise MalformedRequest("hpack-string")
        raw = self._block[start : self.at]
        return huffman.decode(raw) if is_huffman else raw

    def _resize(self, limit_bytes: int) -> None:
        if limit_bytes > TABLE_BYTES:
            raise MalformedRequest("hpack-resize")
        self._limit_bytes = limit_bytes
        self._is_changed = True
        self._evict(0)

    def _add(self, field: RawField) -> None:
        """RFC 7541 §4.4: what is larger than the table empties it, and is no error."""
        size_bytes = len(field[0]) + len(field[1]) + _OVERHEAD
        self._is_changed = True
        self._evict(size_bytes)
        if size_bytes <= self._limit_bytes:
            self._entries.insert(0, field)
            self._size_bytes += size_bytes

    def _evict(self, room_bytes: int) -> None:
        while self._entries and self._size_bytes + room_bytes > self._limit_bytes:
            name, value = self._entries.pop()
            self._size_bytes -= len(name) + len(value) + _OVERHEAD
