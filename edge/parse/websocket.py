"""Which requests ask for a WebSocket, and whether they ask by the book (RFC 6455 §4.2.1; RFC 8441 §5 over HTTP/2).

An `Upgrade` to anything else is ignored (RFC 9110 §7.8). One to `websocket` that is not whole is refused: a client that
believes in an upgrade which the next hop did not see would send it frames as requests (attacks C3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edge.errors import MalformedRequest, WebSocketVersion
from edge.model.http import RawField, Request
from edge.model.websocket import Handshake

VERSION = b"13"
MAX_PROTOCOLS = 32
"""Subprotocols in one offer; clients send one or two."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in the one spelling that base64 has for them."""


def requested(request: Request) -> Handshake | None:
    """The WebSocket that a request with an `Upgrade` field asks for; None: it asks for nothing that is spoken here.

    Raises: MalformedRequest (400), WebSocketVersion (426).
    """
    if b"websocket" not in {item.lower() for item in _items(request, b"upgrade")}:
        return None
    if request.method != "GET" or request.protocol != "1.1" or request.has_body:
        raise MalformedRequest("websocket-request")
    if b"upgrade" not in {item.lower() for item in _items(request, b"connection")}:
        raise MalformedRequest("websocket-connection")
    raw_key = request.field(b"sec-websocket-key")
    if raw_key is None or _KEY.fullmatch(raw_key) is None:
        raise MalformedRequest("websocket-key")
    return _handshake(request, raw_key)


PROTOCOL: RawField = (b":protocol", b"websocket")


def as_get(head: Sequence[RawField]) -> list[RawField]:
    """The head of a WebSocket's extended CONNECT (RFC 8441 §4) as the GET that it is authorized as; `parse.http2` judges the
    rest of its pseudo fields, which are those of any request.

    Raises: MalformedRequest (400).
    """
    names = [name for name, _ in head if name[:1] == b":"]
    if names != [name for name, _ in head[: len(names)]] or names.count(b":protocol") != 1:
        raise MalformedRequest("pseudo-field")
    if PROTOCOL not in head or (b":method", b"CONNECT") not in head:
        raise MalformedRequest("pseudo-field")
    return [(b":method", b"GET") if field[0] == b":method" else field for field in head if field[0] != b":protocol"]


def extended_connect(request: Request) -> Handshake:
    """What `requested` is for HTTP/1.1; `request` was built from `as_get`.

    Raises: MalformedRequest (400), WebSocketVersion (426).
    """
    if request.content_length is not None:
        raise MalformedRequest("websocket-request")  # what follows is no content (RFC 8441 §5)
    return _handshake(request, b"")


def _handshake(request: Request, raw_key: bytes) -> Handshake:
    raw_version = request.field(b"sec-websocket-version")
    if raw_version is None:
        raise MalformedRequest("websocket-version")
    if raw_version != VERSION:
        raise WebSocketVersion("websocket-version")
    return Handshake(raw_key, _protocols(request), request.field(b"origin"))


def _protocols(request: Request) -> tuple[bytes, ...]:
    offered = tuple(_items(request, b"sec-websocket-protocol"))
    if len(offered) > MAX_PROTOCOLS or len(set(offered)) < len(offered) or not all(map(_TOKEN.fullmatch, offered)):
        raise MalformedRequest("websocket-protocol")  # RFC 6455 §4.1: tokens, none of them twice
    return offered


def _items(request: Request, name: bytes) -> Iterator[bytes]:
    """The members of a list field, over all its lines; an empty one is a member too, for the caller to refuse."""
    for field_name, value in request.fields:
        if field_name == name:
            for item in value.split(b","):
                yield item.strip(b" \t")
