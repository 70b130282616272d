"""One HTTP/1.1 request message on llhttp, the only parser of these bytes: its head, then its body to the last byte.

Laws:
- A whole head is fed at once, and a body to its last byte and not beyond, so that where one message ends and the next
  begins is decided once (attacks C1).
- Trailers never become headers (attacks C5); trailers of requests are dropped.
- What is neither content nor needed to find it is bounded: chunk extensions and trailers could go on for ever otherwise, and
  no limit on the content would stop them (CVE-2023-39326, attacks C4).
"""

from __future__ import annotations

from collections.abc import Iterator

import httptools

from edge.errors import MalformedRequest
from edge.model.http import RawField
from edge.parse.request import METHODS

MAX_BARREN_BYTES = 16_384
"""Of chunk extensions and trailers, beyond what the content that came with them deserves: twice its size, and"""
BARREN_BYTES_PER_CHUNK = 16
CHUNKED_AT_ONCE = 16_384
"""Of a chunked body: a chunk may be six bytes, and each is a call."""

_METHODS = {method.encode("ascii"): method for method in METHODS}


class Message:
    """What llhttp said about the request being read. One per connection, used again for each request."""

    __slots__ = (
        "_barren_bytes",
        "_content",
        "_in_trailers",
        "_is_counted_here",
        "_left",
        "_made",
        "_tail",
        "fields",
        "is_complete",
        "keep_alive",
        "method",
        "protocol",
        "target",
    )

    def __init__(self) -> None:
        self._made: httptools.HttpRequestParser | None = None
        self._content: list[bytes] = []
        self._in_trailers = self._is_counted_here = False
        self._tail = b""
        self._left = self._barren_bytes = 0
        self.target = b""
        self.fields: list[RawField] = []
        self.is_complete = False
        self.keep_alive = True
        self.method = ""
        self.protocol = "1.1"

    @property
    def _parser(self) -> httptools.HttpRequestParser:
        """Made when it is needed: heads that were met before are not parsed, and a connection that rests needs none."""
        parser = self._made
        if parser is None:
            parser = self._made = httptools.HttpRequestParser(self)
        return parser

    def feed_head(self, head: bytes) -> None:
        """A head with its empty line and nothing behind it.

        Raises: MalformedRequest; then the connection must close.
        """
        self.is_complete = self._in_trailers = self._is_counted_here = False
        self.fields = []
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # The wish is ignored (RFC 9110 §7.8), or refused with its body by parse; this parser is of no more use.
            self._made = None
        except httptools.HttpParserError as exc:
            raise MalformedRequest("http1-syntax", type(exc).__name__) from exc

    def release(self) -> None:
        """Nothing is read any more. It and its parser name each other, and would wait for the collector."""
        self._made = None

    def expect_body(self, content_length: int | None) -> None:
        """A body follows: so many bytes, or chunks."""
        self._left = content_length or 0
        self._tail = b""
        self._barren_bytes = 0

    def expect_body_of_known(self, content_length: int) -> None:
        """A body of so many bytes follows a head that was parsed before: llhttp has not seen that head, nor sees the body."""
        self._left = content_length
        self._is_counted_here = True
        self.is_complete = False

    def feed_body(self, data: bytes) -> tuple[bytes, bytes]:
        """(content, what lies behind it): behind the end of the message if it is complete, else what is to be fed next.

        Raises: MalformedRequest; then the connection must close.
        """
        content = self._content
        content.clear()
        try:
            rest = self._feed_counted(data) if self._left else self._feed_chunks(data)
        except httptools.HttpParserError as exc:
            raise MalformedRequest("http1-body-syntax", type(exc).__name__) from exc
        # In one piece: a chunk for each byte would be a write for each byte upstream.
        return content[0] if len(content) == 1 else b"".join(content), rest

    def _feed_counted(self, data: bytes) -> bytes:
        left = self._left
        piece, rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self._left = left = left - len(piece)
        if self._is_counted_here:
            self._content.append(piece)
            self.is_complete = not left
        else:
            self._parser.feed_data(piece)
        return rest

    def _feed_chunks(self, data: bytes) -> bytes:
        fed = 0
        now = data[:CHUNKED_AT_ONCE]
        feed = self._parser.feed_data
        for piece in _pieces(self._tail, now):
            feed(piece)
            fed += len(piece)
            if self.is_complete:
                break
        else:
            self._tail = (self._tail + now)[-3:]
        content = self._content
        deserved = 3 * sum(map(len, content)) + BARREN_BYTES_PER_CHUNK * len(content)
        self._barren_bytes = max(0, self._barren_bytes + fed - deserved)
        if self._barren_bytes > MAX_BARREN_BYTES:
            raise MalformedRequest("chunk-overhead")
        return data[fed:]

    # -- llhttp ---------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_trailers:
            self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._in_trailers = True
        parser = self._parser
        self.method = _METHODS.get(parser.get_method(), "")
        self.protocol = parser.get_http_version()
        # Only right inside the callback; HTTP/1.0 closes, because its keep-alive has no safe end of a message.
        self.keep_alive = parser.should_keep_alive() and self.protocol == "1.1"

    def on_body(self, body: bytes) -> None:
        self._content.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True


def _pieces(tail: bytes, data: bytes) -> Iterator[bytes]:
    """Cut `data`, which follows `tail`, behind each empty line: a chunked message ends in one (RFC 9112 §7.1), so a reader
    that stops when its message is complete has not been given a byte of the next."""
    joined = tail + data
    offset = len(tail)
    start = search = 0
    while start < len(data):
        found = joined.find(b"\r\n\r\n", search)
        end = len(data) if found < 0 else found + 4 - offset
        search = found + 1
        yield data[start:end]
        start = end
