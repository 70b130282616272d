"""The ClientHello: what real clients send is understood however it is cut; what could be read in two ways is refused."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.accept.client_hello import (
    MAX_FLIGHT_BYTES,
    MAX_HELLO_BYTES,
    BadHello,
    ClientHello,
    HelloReader,
    is_awaited,
    parse_hello,
)

DECODE, NAME = 50, 112


def real(server_name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """The first flight of OpenSSL's client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def vector(content: bytes) -> bytes:
    return u16(len(content)) + content


def extension(kind: int, content: bytes) -> bytes:
    return u16(kind) + vector(content)


def sni(name: bytes) -> bytes:
    return extension(0, vector(b"\0" + vector(name)))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(b"".join(bytes((len(name),)) + name for name in names)))


def body(*extensions: bytes) -> bytes:
    return b"\x03\x03" + bytes(32) + b"\0" + vector(b"\x13\x01") + b"\x01\0" + vector(b"".join(extensions))


def handshake(content: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + len(content).to_bytes(3, "big") + content


def record(payload: bytes, kind: int = 22) -> bytes:
    return bytes((kind,)) + b"\x03\x01" + vector(payload)


@pytest.mark.parametrize("name", [None, "localhost", "API.example.com"])
@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1"), ("x",)])
def test_what_openssl_sends_is_understood(name: str | None, protocols: tuple[str, ...]) -> None:
    hello = HelloReader().feed(real(name, protocols))
    expected = tuple(each.encode() for each in protocols) or None
    assert hello == ClientHello(name.encode() if name else None, expected)


def test_a_hello_in_single_bytes_is_the_same() -> None:
    reader, flight = HelloReader(), real("localhost", ("h2",))
    found = [reader.feed(flight[at : at + 1]) for at in range(len(flight))]
    assert found == [None] * (len(flight) - 1) + [ClientHello(b"localhost", (b"h2",))]


def test_a_hello_spread_over_records_is_the_same() -> None:
    message = real("localhost", ("h2",))[5:]
    pieces = b"".join(record(message[at : at + 3]) for at in range(0, len(message), 3))
    assert HelloReader().feed(pieces) == ClientHello(b"localhost", (b"h2",))


def test_the_second_hello_after_a_retry_is_seen_too() -> None:
    reader = HelloReader()
    assert reader.feed(record(handshake(body(sni(b"a"))))) == ClientHello(b"a", None)
    ccs = record(b"\x01", 20)  # RFC 8446 §D.4
    assert reader.feed(ccs + record(handshake(body(alpn(b"h2"))))) == ClientHello(None, (b"h2",))


def test_without_extensions_nothing_is_asked_for() -> None:
    assert parse_hello(body()[:-2]) == parse_hello(body()) == ClientHello(None, None)


@pytest.mark.parametrize("trailing", [record(bytes(50), 23), record(handshake(bytes(66), 16)), b"GET / HTTP/1.1\r\n"])
def test_what_comes_later_is_not_looked_at(trailing: bytes) -> None:
    reader = HelloReader()
    assert reader.feed(real("localhost")) is not None
    assert reader.feed(trailing) is None
    assert reader.feed(trailing) is None


@pytest.mark.parametrize(
    "piece",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x80\x2e\x01\x03\x03" + bytes(50),  # a hello of SSL 2.0 (RFC 8446 §D.5)
        record(handshake(b"", 2)),
        b"\x16\x03\x01\xff\xff" + bytes(100),
    ],
)
def test_what_is_no_hello_is_left_to_openssl(piece: bytes) -> None:
    reader = HelloReader()
    assert reader.feed(piece) is None
    assert reader.feed(record(handshake(body(sni(b"localhost"))))) is None


@pytest.mark.parametrize(
    ("content", "alert"),
    [
        (b"", DECODE),
        (bytes(34), DECODE),
        (body()[:-1], DECODE),
        (body() + b"\0", DECODE),
        (body(sni(b"a"), sni(b"a")), DECODE),
        (body(alpn(b"h2"), alpn(b"h2")), DECODE),
        (body(b"\x0a\x0a\0\1"), DECODE),
        (body(u16(0) + u16(9) + b"short"), DECODE),
        (body(extension(0, b"")), DECODE),
        (body(extension(0, vector(b"\x01" + vector(b"a")))), DECODE),
        (body(extension(0, vector(b"\0" + vector(b"a") + b"\0" + vector(b"b")))), DECODE),
        (body(sni(b"")), NAME),
        (body(sni(b"\xff")), NAME),
        (body(sni(b"a\0b")), NAME),
        (body(sni(b"a b")), NAME),
        (body(sni(b"a" * 256)), NAME),
        (body(alpn()), DECODE),
        (body(alpn(b"")), DECODE),
        (body(extension(16, b"")), DECODE),
        (body(extension(16, vector(b"\x05h2"))), DECODE),
        (body(extension(16, vector(b"\x02h2") + b"x")), DECODE),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_the_alert(content: bytes, alert: int) -> None:
    with pytest.raises(BadHello) as caught:
        HelloReader().feed(record(handshake(content)))
    assert caught.value.alert == alert


def test_a_hello_is_bounded_and_ends_its_record() -> None:
    for flight in (b"\x01" + (MAX_HELLO_BYTES + 1).to_bytes(3, "big"), handshake(body()) + handshake(body())):
        with pytest.raises(BadHello) as caught:
            HelloReader().feed(record(flight))
        assert caught.value.alert == DECODE


def test_nothing_is_kept_beyond_one_record_and_one_hello() -> None:
    reader = HelloReader()
    for _ in range(100):
        assert reader.feed(record(bytes(16_000), 23)) is None
    assert reader.feed(record(handshake(body(sni(b"a"))))) == ClientHello(b"a", None)


@settings(max_examples=150)
@given(st.binary(max_size=80), st.integers(0, 300))
def test_any_bytes_give_a_hello_or_our_refusal(noise: bytes, at: int) -> None:
    good = body(sni(b"localhost"), alpn(b"h2", b"http/1.1"), extension(43, b"\x02\x03\x04"))
    for content in (noise, good[:at] + noise, good[:at] + noise + good[at + len(noise) :]):
        with suppress(BadHello):
            assert isinstance(parse_hello(content), ClientHello)


def awaited(flight: bytes) -> bool:
    return is_awaited(bytearray(flight).ljust(MAX_FLIGHT_BYTES), len(flight))


def test_a_hello_is_awaited_until_its_record_is_there() -> None:
    flight = record(handshake(body(sni(b"localhost"))))
    assert [awaited(flight[:size]) for size in range(1, len(flight) + 2)] == [True] * (len(flight) - 1) + [False, False]


@pytest.mark.parametrize(
    "flight",
    [b"G", b"GET / HTTP/1.1\r\n\r\n", b"\x15\3\3", b"\x16\3\1\xff\xff", b"\x16\3\1\x41\1", record(b"")],
)
def test_what_is_no_hello_or_too_long_for_one_is_awaited_no_longer(flight: bytes) -> None:
    assert not awaited(flight)


def test_the_longest_record_is_awaited_and_fits() -> None:
    flight = record(bytes(MAX_FLIGHT_BYTES - 5))
    assert awaited(flight[:-1])
    assert not awaited(flight)
