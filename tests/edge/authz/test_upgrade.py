"""Where a WebSocket may be opened, and from pages of whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.authz.upgrade import canonical_origin, require_upgrade
from edge.errors import Forbidden
from edge.model.websocket import Handshake
from tests.edge.authz.house import ORDERS, request

ROUTE = replace(ORDERS, origins=("https://app.example.com", "http://localhost:3000"))


def denial(origin: bytes | None, authority: str = "localhost:8443") -> str | None:
    asked = request()
    asked.authority = authority
    try:
        require_upgrade(asked, ROUTE, Handshake(b"", (), origin))
    except Forbidden as exc:
        return exc.denial.reason
    return None


def test_a_route_without_websockets_takes_none() -> None:
    with pytest.raises(Forbidden) as caught:
        require_upgrade(request(), replace(ROUTE, websocket=None), Handshake(b"", (), None))
    assert caught.value.rule == "websocket-off"


def test_programs_send_no_origin() -> None:
    assert denial(None) is None


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (b"https://localhost:8443", "localhost:8443"),
        (b"https://localhost", "localhost"),
        (b"https://localhost:443", "localhost"),
        (b"https://localhost", "localhost:443"),
        (b"HTTPS://LocalHost:8443", "localhost:8443"),
        (b"https://[::1]:8443", "[::1]:8443"),
        (b"https://app.example.com", "localhost:8443"),
        (b"https://app.example.com:443", "localhost:8443"),
        (b"http://localhost:3000", "localhost:8443"),
    ],
)
def test_pages_of_the_host_itself_and_of_listed_origins_may(origin: bytes, authority: str) -> None:
    assert denial(origin, authority) is None


@pytest.mark.parametrize(
    "origin",
    [b"null", b"", b"http://localhost:8443", b"https://localhost", b"https://localhost:84", b"https://localhost:8443/",
     b"https://localhost:8443.evil.example", b"https://evil.example", b"https://app.example.com.evil.example",
     b"http://app.example.com", b"https://app.example.com:80", b"localhost:8443", b"https://app.example.com https://x",
     b"https://app\xe4.example.com", b"http://localhost:3000:80"],
)  # fmt: skip
def test_pages_of_others_may_not(origin: bytes) -> None:
    assert denial(origin) == "foreign-origin"


def test_an_origin_has_one_spelling() -> None:
    assert canonical_origin("HTTPS://A.example:443") == "https://a.example"
    assert canonical_origin("http://a.example:80") == "http://a.example"
    assert canonical_origin("https://a.example:80") == "https://a.example:80"
