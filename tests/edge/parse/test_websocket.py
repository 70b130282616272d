"""Which requests ask for a WebSocket, and which only seem to."""

from __future__ import annotations

import pytest

from edge.errors import MalformedRequest, RuledError, WebSocketVersion
from edge.model.http import RawField
from edge.model.websocket import Handshake
from edge.parse.request import build
from edge.parse.websocket import MAX_PROTOCOLS, extended_connect, requested

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
WHOLE: tuple[RawField, ...] = (
    (b"host", b"localhost"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
)


def asked(*more: RawField, without: bytes = b"", method: str = "GET", protocol: str = "1.1") -> Handshake | None:
    fields = tuple(field for field in WHOLE if field[0] != without) + more
    request, _ = build(method, b"/orders", protocol, fields)
    return requested(request)


def refused(*more: RawField, without: bytes = b"", method: str = "GET", protocol: str = "1.1") -> tuple[type, str]:
    with pytest.raises(RuledError) as caught:
        asked(*more, without=without, method=method, protocol=protocol)
    return type(caught.value), caught.value.rule


def test_a_whole_handshake_is_read() -> None:
    assert asked(
        (b"origin", b"https://a"), (b"sec-websocket-protocol", b"chat, v2"), (b"sec-websocket-protocol", b"x")
    ) == (Handshake(KEY, (b"chat", b"v2", b"x"), b"https://a"))


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket/13", b"", b"web socket", b"TLS/1.0, HTTP/2.0"])
def test_an_upgrade_to_anything_else_asks_for_nothing(upgrade: bytes) -> None:
    assert asked((b"upgrade", upgrade), without=b"upgrade") is None


@pytest.mark.parametrize("upgrade", [b"WebSocket", b"h2c, WEBSOCKET", b", websocket"])
def test_the_word_is_found_in_any_case_and_place(upgrade: bytes) -> None:
    assert asked((b"upgrade", upgrade), without=b"upgrade") == Handshake(KEY, (), None)


@pytest.mark.parametrize("connection", [b"upgrade", b"keep-alive, Upgrade", b"keep-alive,UPGRADE"])
def test_connection_is_a_list_in_any_case(connection: bytes) -> None:
    assert asked((b"connection", connection), without=b"connection") == Handshake(KEY, (), None)


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_only_get_opens_a_websocket(method: str) -> None:
    assert refused(method=method) == (MalformedRequest, "websocket-request")


def test_http_10_opens_none() -> None:
    assert refused(protocol="1.0") == (MalformedRequest, "websocket-request")


@pytest.mark.parametrize("connection", [b"keep-alive", b"close", b"upgrades", b""])
def test_an_upgrade_that_connection_does_not_name_is_refused(connection: bytes) -> None:
    assert refused((b"connection", connection), without=b"connection") == (MalformedRequest, "websocket-connection")


def test_missing_fields_are_refused() -> None:
    assert refused(without=b"connection") == (MalformedRequest, "websocket-connection")
    assert refused(without=b"sec-websocket-key") == (MalformedRequest, "websocket-key")
    assert refused(without=b"sec-websocket-version") == (MalformedRequest, "websocket-version")


@pytest.mark.parametrize(
    "key",
    [b"", b"AAAA", KEY[:-1], KEY + b"=", KEY[:-2] + b"AA", b"dGhlIHNhbXBsZSBub25jZR==", b"dGhlIHNhbXBsZSBub25j_Q==",
     b"dGhlIHNhbXBsZSBub25jZQ==, x", b" " * 24],
)  # fmt: skip
def test_a_key_is_sixteen_bytes_in_one_spelling(key: bytes) -> None:
    assert refused((b"sec-websocket-key", key), without=b"sec-websocket-key") == (MalformedRequest, "websocket-key")


@pytest.mark.parametrize("name", [b"sec-websocket-key", b"sec-websocket-version", b"origin"])
def test_what_may_stand_once_is_refused_twice(name: bytes) -> None:
    value = dict(WHOLE).get(name, b"https://a")
    fields = ((name, value), (name, value)) if name == b"origin" else ((name, value),)
    assert refused(*fields) == (MalformedRequest, "field-repeated")


@pytest.mark.parametrize("version", [b"8", b"0", b"14", b"013", b"13, 8", b"+13", b""])
def test_another_version_is_told_which_one_is_spoken(version: bytes) -> None:
    wrong = refused((b"sec-websocket-version", version), without=b"sec-websocket-version")
    assert wrong == (WebSocketVersion, "websocket-version")


@pytest.mark.parametrize("offered", [b"", b"chat,,v2", b"chat, chat", b"a b", b'"chat"', b"ch\xe4t", b"x" * 129])
def test_subprotocols_are_tokens_and_none_stands_twice(offered: bytes) -> None:
    assert refused((b"sec-websocket-protocol", offered)) == (MalformedRequest, "websocket-protocol")


def test_an_offer_has_an_end() -> None:
    many = b",".join(b"p%d" % at for at in range(MAX_PROTOCOLS + 1))
    assert refused((b"sec-websocket-protocol", many)) == (MalformedRequest, "websocket-protocol")


def test_over_http2_there_is_no_key() -> None:
    fields = ((b"host", b"localhost"), (b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat"))
    request, _ = build("GET", b"/orders", "2", fields)
    assert extended_connect(request) == Handshake(b"", (b"chat",), None)


def test_over_http2_the_version_is_asked_for_too() -> None:
    request, _ = build("GET", b"/orders", "2", ((b"host", b"localhost"), (b"sec-websocket-version", b"12")))
    with pytest.raises(WebSocketVersion):
        extended_connect(request)
