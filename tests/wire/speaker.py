"""The same question over HTTP/1.1 or HTTP/2, for cases that are written once and hold for both."""

from __future__ import annotations

from tests.wire.h2_client import Fields, Goaway, H2Client, Reset
from tests.wire.rig import Answer, Client, Listening

LOST = (OSError, EOFError, Reset, Goaway)
"""How a caller learns that it gets no answer."""


class Http1Speaker:
    """Asks over HTTP/1.1, on one connection while the gateway keeps it."""

    version = "1.1"

    def __init__(self, gateway: Listening) -> None:
        self._gateway = gateway
        self._client: Client | None = None
        self._method = ""

    def ask(
        self,
        method: str = "GET",
        path: bytes = b"/orders/7",
        fields: Fields = (),
        *,
        body: bytes | None = None,
        authority: bytes = b"localhost",
    ) -> Answer:
        """One request and its answer. Raises: one of `LOST`."""
        is_counted = body is None or any(name == b"content-length" for name, _ in fields)
        raw_body = body or b""
        if not is_counted:
            raw_body = (b"%x\r\n%b\r\n" % (len(raw_body), raw_body) if raw_body else b"") + b"0\r\n\r\n"
        try:
            head = self._head(method, path, fields, authority, is_chunked=not is_counted)
            self._connected().send(head + raw_body)
            return self.answer()
        except LOST:
            self.close()
            raise

    def begin(
        self,
        method: str,
        path: bytes,
        fields: Fields = (),
        *,
        authority: bytes = b"localhost",
        has_body: bool = False,
    ) -> None:
        """Send a head; with `has_body` more is to come by `send` and `finish`."""
        self._connected().send(self._head(method, path, fields, authority, is_chunked=has_body))

    def _head(self, method: str, path: bytes, fields: Fields, authority: bytes, *, is_chunked: bool) -> bytes:
        lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), path), b"Host: " + authority]
        lines += [b"%b: %b" % field for field in fields]
        lines += [b"Transfer-Encoding: chunked"] * is_chunked
        self._method = method
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def send(self, piece: bytes) -> None:
        if piece:  # an empty chunk would end the body
            self._connected().send(b"%x\r\n%b\r\n" % (len(piece), piece))

    def finish(self, trailers: Fields = ()) -> None:
        self._connected().send(b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n")

    def wait_for(self, marker: bytes) -> None:
        """Until this has come, of an answer that may be far from its end."""
        self._connected().read_until(marker)

    def answer(self) -> Answer:
        answer = self._connected().answer(is_head=self._method == "HEAD")
        if answer.fields.get("connection") == "close":
            self.close()
        return answer

    def leave(self) -> None:
        """Give up the request under way, which takes the connection with it."""
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self._gateway)
        return self._client


class Http2Speaker:
    """Asks over HTTP/2, on one connection until the gateway ends it."""

    version = "2"

    def __init__(self, gateway: Listening) -> None:
        self._gateway = gateway
        self._client: H2Client | None = None
        self._stream = 0

    def ask(
        self,
        method: str = "GET",
        path: bytes = b"/orders/7",
        fields: Fields = (),
        *,
        body: bytes | None = None,
        authority: bytes = b"localhost",
    ) -> Answer:
        """One request and its answer. Raises: one of `LOST`."""
        try:
            self._stream = self._connected().request(method, path, fields, body=body, authority=authority)
            return self.answer()
        except LOST:
            self.close()
            raise

    def begin(
        self,
        method: str,
        path: bytes,
        fields: Fields = (),
        *,
        authority: bytes = b"localhost",
        has_body: bool = False,
    ) -> None:
        """Send a head; with `has_body` more is to come by `send` and `finish`."""
        head = [(b":method", method.encode("ascii")), (b":scheme", b"https"), (b":authority", authority)]
        self._stream = self._connected().head([*head, (b":path", path), *fields], is_end=not has_body)

    def send(self, piece: bytes) -> None:
        self._connected().send(self._stream, piece)

    def finish(self, trailers: Fields = ()) -> None:
        client = self._connected()
        if trailers:
            client.connection.send_headers(self._stream, list(trailers), end_stream=True)
        else:
            client.connection.end_stream(self._stream)
        client.flush()

    def wait_for(self, marker: bytes) -> None:
        """Until this has come, of an answer that may be far from its end."""
        client = self._connected()
        while marker not in client.bodies.get(self._stream, b""):
            client.pump()

    def answer(self) -> Answer:
        return self._connected().answer(self._stream)

    def leave(self) -> None:
        """Give up the request under way; the connection stays."""
        self._connected().reset(self._stream)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> H2Client:
        if self._client is not None and self._client.goaways and self._stream in self._client.ended:
            self.close()  # it has said that this connection takes no more
        if self._client is None:
            self._client = H2Client(self._gateway)
        return self._client


Speaker = Http1Speaker | Http2Speaker
SPEAKERS: dict[str, type[Http1Speaker] | type[Http2Speaker]] = {"1.1": Http1Speaker, "2": Http2Speaker}
