"""Where an instance may be (attacks E4, P51): every disguise of an inner address, and the connection's own as the rule."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.registry.address import Announced, parse, refusal

OWN = ipaddress.ip_address("10.1.2.3")


def judged(
    text: str, own: str = "10.1.2.3", granted: tuple[str, ...] = (), *, may_loopback: bool = False
) -> str | None:
    networks = tuple(map(ipaddress.ip_network, granted))
    return refusal(ipaddress.ip_address(text), ipaddress.ip_address(own), networks, may_loopback=may_loopback)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.7:9101", "192.0.2.7", 9101),
        ("[2001:DB8::7]:9101", "2001:db8::7", 9101),
        (":9101", "", 9101),
        ("Orders-1.internal:65535", "orders-1.internal", 65535),
        ("orders.:1", "orders.", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found = parse(text)
    assert found is not None
    assert (found.host, found.port) == (host, port)
    assert (found.literal is None) == (not host or host[0] == "o")


@pytest.mark.parametrize(
    "text",
    [
        "", "orders", "orders:", "orders:0", "orders:65536", "orders:09101", "orders:+1", "orders:1 ",
        # What inet_aton takes for an address and `ipaddress` does not (E4: decimal, octal, hex, short).
        "2130706433:1", "0177.0.0.1:1", "0x7f.0.0.1:1", "127.1:1", "127.0.0.01:1", "0x7f000001:1", "foo.0x7f:1",
        "a@b:1", "user:password@host:1", "http://host:1", "host/path:1", "2001:db8::7:1", "[192.0.2.7]:1", "[host]:1",
        "[fe80::1%eth0]:1", "[::1:1", "a..b:1", "-a:1", "ä.internal:1", "a b:1", "x" * 64 + ":1", "a." * 130 + "a:1",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_no_address(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = parse(text)
    assert found is None or isinstance(found, Announced)


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        "224.0.0.1", "ff02::1", "0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "240.0.0.1", "fec0::1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254",
        "fe80::5efe:10.1.2.3", "2001:db8::5efe:169.254.169.254", "::ffff:255.255.255.255",
        "2001:0:a9fe:a9fe::", "2001:0:0a01:0203:0:0:5601:5601",
    ],
)  # fmt: skip
def test_special_addresses_are_refused_in_every_disguise_whatever_is_allowed(text: str) -> None:
    assert judged(text, own=text, granted=("0.0.0.0/0", "::/0"), may_loopback=True) == "address-special"


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"]
)
def test_loopback_is_refused_unless_allowed(text: str) -> None:
    assert judged(text, own=text, granted=("0.0.0.0/0", "::/0")) == "address-loopback"
    assert judged(text, own=text, may_loopback=True) is None


def test_the_connections_own_address_is_the_rule() -> None:
    assert judged("10.1.2.3") is None
    assert judged("10.1.2.4") == "address-foreign"
    assert judged("2001:db8::1") == "address-foreign"


def test_a_connection_over_a_dual_socket_is_its_ipv4_address() -> None:
    assert judged("10.1.2.3", own="::ffff:10.1.2.3") is None
    assert judged("::ffff:10.1.2.3", own="10.1.2.3") == "address-foreign"


def test_granted_networks_open_what_they_name_and_nothing_behind_it() -> None:
    assert judged("10.9.0.1", granted=("10.9.0.0/16",)) is None
    assert judged("10.10.0.1", granted=("10.9.0.0/16",)) == "address-foreign"
    assert judged("2001:db8::1", granted=("10.9.0.0/16", "2001:db8::/32")) is None
    # A grant of the translator's prefix is no grant of what is behind the translator.
    assert judged("64:ff9b::a0a:1", granted=("64:ff9b::/96",)) == "address-foreign"
    assert judged("64:ff9b::a0a:1", granted=("64:ff9b::/96", "10.10.0.0/16")) is None


def test_being_granted_or_own_does_not_open_loopback() -> None:
    assert judged("127.0.0.1", own="127.0.0.1", granted=("127.0.0.0/8",)) == "address-loopback"
