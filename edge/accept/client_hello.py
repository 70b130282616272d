"""The ClientHello as it came: which server name and which protocols a client asks for (RFC 8446 §4.1.2).

CPython tells the server name by a callback, decoded, and has no hook for ALPN at all: a client whose protocols we do not
speak would be served HTTP/1.1 although it did not offer it (RFC 7301 §3.2; cross-protocol attacks such as ALPACA live on
that). So `accept.tls` looks at the same bytes before OpenSSL does. Whatever is not a ClientHello is left to OpenSSL, which
refuses it with the right alert; OpenSSL's word on the name is compared with ours, and the handshake ends when they differ.

    record      type 1 · version 2 · length 2 · payload        a hello may be spread over records, and these over segments
    handshake   1 · length 3 · body
    body        version 2 · random 32 · session id <0..32> · ciphers <2..> · compression <1..> · extensions <0..>
    extension   type 2 · length 2 · content                    server_name = 0 (RFC 6066 §3), ALPN = 16 (RFC 7301 §3.1)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct, error

MAX_HELLO_BYTES = 16_384
"""With post-quantum key shares clients send 1.5 to 4 KiB; OpenSSL alone would take 128 KiB from anybody."""
DECODE_ERROR = 50
UNRECOGNIZED_NAME = 112
NO_APPLICATION_PROTOCOL = 120

_MAX_RECORD_BYTES = 16_384 + 256
MAX_FLIGHT_BYTES = 5 + _MAX_RECORD_BYTES
"""Of what `is_awaited` looks at: a record with its header (RFC 8446 §5.1)."""
_RECORD_TYPES = frozenset((20, 21, 22, 23))
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16
_NAME = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
"""Host names, and the IP literals that some clients send. CPython writes a traceback to stderr for what is not ASCII."""
_U16 = Struct(">H")
_TWO_U16 = Struct(">HH")
_WHOLE = Struct(">BHHBBH")
"""Headers of a record and of the handshake message that begins it."""


class BadHello(Exception):
    """Ends the handshake with `alert` (RFC 8446 §6.2)."""

    def __init__(self, alert: int, rule: str) -> None:
        self.alert = alert
        super().__init__(rule)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for; None where it did not say."""

    server_name: bytes | None
    alpn: tuple[bytes, ...] | None


def parse_hello(body: bytes) -> ClientHello:
    """A ClientHello without its handshake header. Lengths must fit exactly, and what we read may not come twice.

    Raises: BadHello.
    """
    try:
        return _parse(body)
    except (IndexError, error) as exc:
        raise BadHello(DECODE_ERROR, "hello-cut-short") from exc


def _parse(body: bytes) -> ClientHello:
    at = 35 + body[34]
    at += 2 + _U16.unpack_from(body, at)[0]
    at += 1 + body[at]
    size = len(body)
    name: bytes | None = None
    alpn: tuple[bytes, ...] | None = None
    if at == size:
        return ClientHello(None, None)  # TLS 1.2 without extensions
    if at + 2 + _U16.unpack_from(body, at)[0] != size:
        raise BadHello(DECODE_ERROR, "extensions-length")
    at += 2
    header = _TWO_U16.unpack_from
    while at < size:
        kind, length = header(body, at)
        if kind == _SERVER_NAME and name is None:
            name = _server_name(body[at + 4 : at + 4 + length])
        elif kind == _ALPN and alpn is None:
            alpn = _protocols(body[at + 4 : at + 4 + length])
        elif kind in (_SERVER_NAME, _ALPN):
            raise BadHello(DECODE_ERROR, "extension-twice")
        at += 4 + length
    if at != size:
        raise BadHello(DECODE_ERROR, "extension-length")
    return ClientHello(name, alpn)


def _server_name(content: bytes) -> bytes:
    """Exactly one name, of the one type there is."""
    total, kind, length = _U16.unpack_from(content)[0], content[2], _U16.unpack_from(content, 3)[0]
    name = content[5:]
    if total != len(content) - 2 or kind != 0 or length != len(name):
        raise BadHello(DECODE_ERROR, "server-name")
    if _NAME.fullmatch(name) is None:
        raise BadHello(UNRECOGNIZED_NAME, "server-name-syntax")
    return name


def _protocols(content: bytes) -> tuple[bytes, ...]:
    if _U16.unpack_from(content)[0] != len(content) - 2 or len(content) == 2:
        raise BadHello(DECODE_ERROR, "alpn-length")
    found = []
    at = 2
    while at < len(content):
        end = at + 1 + content[at]
        if end > len(content) or end == at + 1:
            raise BadHello(DECODE_ERROR, "alpn-name")
        found.append(content[at + 1 : end])
        at = end
    return tuple(found)


def is_awaited(room: bytearray, size: int) -> bool:
    """Whether the first `size` bytes of `room` (at least one) begin a record of a handshake that is not all there yet.

    What is anything else is awaited no longer: OpenSSL has an alert for it.
    """
    if room[0] != _HANDSHAKE or size >= MAX_FLIGHT_BYTES:
        return False
    return size < 5 or size < 5 + _U16.unpack_from(room, 3)[0] <= MAX_FLIGHT_BYTES


class HelloReader:
    """Finds each ClientHello among the bytes of a handshake, in whatever pieces it comes: after a HelloRetryRequest there is
    a second one. Holds at most one record and one hello."""

    __slots__ = ("_is_over", "_message", "_raw")

    def __init__(self) -> None:
        self._raw = bytearray()
        self._message = bytearray()
        self._is_over = False

    def feed(self, piece: bytes) -> ClientHello | None:
        """The hello that `piece` completes. Raises: BadHello."""
        if self._is_over:
            return None
        raw, size = self._raw, len(piece)
        # What nearly all clients send: the hello, whole, in one record.
        if not raw and not self._message and 9 < size <= MAX_HELLO_BYTES:
            record, _, length, kind, high, low = _WHOLE.unpack_from(piece)
            if record == _HANDSHAKE and kind == _CLIENT_HELLO and length == size - 5 and (high << 16) + low == size - 9:
                return parse_hello(piece[9:])
        raw += piece
        found = None
        while len(raw) >= 5:
            length = _U16.unpack_from(raw, 3)[0]
            if raw[0] not in _RECORD_TYPES or length > _MAX_RECORD_BYTES:
                self._end()  # OpenSSL has an alert for it
                return None
            end = 5 + length
            if len(raw) < end:
                break
            payload = bytes(raw[5:end]) if raw[0] == _HANDSHAKE else b""
            del raw[:end]
            if payload:
                self._message += payload
                found = self._complete() or found
        return found

    def _complete(self) -> ClientHello | None:
        message = self._message
        if len(message) < 4:
            return None
        if message[0] != _CLIENT_HELLO:
            self._end()  # a key exchange of TLS 1.2: hellos are over
            return None
        end = 4 + int.from_bytes(message[1:4], "big")
        if end > MAX_HELLO_BYTES:
            raise BadHello(DECODE_ERROR, "hello-too-long")
        if len(message) < end:
            return None
        if len(message) > end:
            raise BadHello(DECODE_ERROR, "behind-the-hello")  # RFC 8446 §5.1: it ends its record
        body = bytes(message[4:end])
        message.clear()
        return parse_hello(body)

    def _end(self) -> None:
        self._is_over = True
        self._raw.clear()
        self._message.clear()
