"""Who asks when a proxy hands on: the first address from the right that is none of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.accept.proxies import MAX_HOPS, NOBODY, Proxies, behind
from edge.errors import MalformedRequest
from edge.model.identity import Peer

OURS = Proxies(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
PROXY = "10.0.0.8"


def listed(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value) for value in values]


def forwarded(*values: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", value) for value in values]


@pytest.mark.parametrize(
    ("ip", "is_trusted"),
    [
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_who_is_trusted(ip: str, is_trusted: bool) -> None:
    assert OURS.trusts(ip) is is_trusted
    assert not NOBODY.trusts(ip)


SPOOFED = [*listed(b"6.6.6.6"), *forwarded(b"for=7.7.7.7"), (b"x-real-ip", b"8.8.8.8")]


def test_who_is_not_trusted_says_nothing() -> None:
    assert OURS.client_of("192.0.2.7", SPOOFED) == "192.0.2.7"
    assert OURS.client_of("192.0.2.7", listed(b"nonsense")) == "192.0.2.7"
    assert NOBODY.client_of(PROXY, SPOOFED) == PROXY


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], PROXY),
        ([b"192.0.2.7"], "192.0.2.7"),
        ([b"192.0.2.7:4711"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ([b"nonsense,192.0.2.7"], "192.0.2.7"),
        ([b", ,\t192.0.2.7 "], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7, 10.0.0.1, 10.0.0.2"], "192.0.2.7"),
        ([b"6.6.6.6, 192.0.2.7", b"10.0.0.1", b"192.0.2.1"], "192.0.2.7"),
        ([b"10.0.0.3, 10.0.0.1, 10.0.0.2"], "10.0.0.3"),
        ([b"2001:db9::7"], "2001:db9::7"),
        ([b"[2001:DB9:0::7]:443"], "2001:db9::7"),
        ([b"[2001:db9::7], 2001:db8::5"], "2001:db9::7"),
        ([b"::ffff:192.0.2.7"], "192.0.2.7"),
        ([b"192.0.2.7, ::ffff:10.0.0.1"], "192.0.2.7"),
    ],
)
def test_the_first_from_the_right_that_is_none_of_ours(values: list[bytes], client: str) -> None:
    assert OURS.client_of(PROXY, listed(*values)) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"for=192.0.2.7"], "192.0.2.7"),
        ([b"For=192.0.2.7;proto=https;by=10.0.0.8;host=x"], "192.0.2.7"),
        ([b'for="192.0.2.7:4711"'], "192.0.2.7"),
        ([b'for="[2001:db9::7]"'], "2001:db9::7"),
        ([b'for="[2001:db9::7]:4711";proto=http'], "2001:db9::7"),
        ([b"for=6.6.6.6, for=192.0.2.7, for=10.0.0.1"], "192.0.2.7"),
        ([b"for=6.6.6.6", b"for=192.0.2.7,for=10.0.0.1", b", ,for=10.0.0.2,"], "192.0.2.7"),
        ([b"for=unknown, for=_hidden, for=192.0.2.7"], "192.0.2.7"),
        ([b'for="x, for=6.6.6.6", for=192.0.2.7'], "192.0.2.7"),
        ([b'for="\\1\\92.0.2.7"'], "192.0.2.7"),
        ([b""], PROXY),
    ],
)
def test_the_same_of_what_has_parameters(values: list[bytes], client: str) -> None:
    assert OURS.client_of(PROXY, forwarded(*values)) == client


@pytest.mark.parametrize(
    "value",
    [b"", b",", b"nonsense", b"unknown", b"192.0.2", b"192.0.2.256", b"192.0.02.7", b"192.0.2.7:", b"192.0.2.7:x",
     b"192.0.2.7 x", b"[192.0.2.7]", b"[::1", b"::1]", b":::", b"[2001:db9::7]443", b"fe80::1%eth0", b"0x7f.1", b"2130706433",
     b"for=192.0.2.7", b'"192.0.2.7"', b"192.0.2.7;8", b"192.0.2.7, 10.0.0",
     b"6.6.6.6, _secret", b"6.6.6.6, , 10.0.0.1", b"\xd9\xa1.2.3.4"],
)  # fmt: skip
def test_what_has_to_be_believed_and_is_no_address_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        OURS.client_of(PROXY, listed(value))
    assert caught.value.rule == "forwarded-address"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (b"for=unknown", "forwarded-address"),
        (b"for=_hidden", "forwarded-address"),
        (b"proto=https", "forwarded-address"),
        (b"for=192.0.2.7, by=10.0.0.1", "forwarded-address"),
        (b'for=""', "forwarded-address"),
        (b"for=", "forwarded-syntax"),
        (b"192.0.2.7", "forwarded-syntax"),
        (b"for=192.0.2.7;", "forwarded-syntax"),
        (b"for = 192.0.2.7", "forwarded-syntax"),
        (b"for=192.0.2.7; proto=http", "forwarded-syntax"),
        (b"for=[2001:db9::7]", "forwarded-syntax"),
        (b"for=192.0.2.7:80", "forwarded-syntax"),
        (b'for="192.0.2.7', "forwarded-syntax"),
        (b'for="x, for=192.0.2.7', "forwarded-syntax"),
        (b'for=x", for=192.0.2.7', "forwarded-syntax"),
        (b'for="192.0.2.7"x', "forwarded-syntax"),
        (b"for=6.6.6.6;for=192.0.2.7", "forwarded-syntax"),
        (b"for=6.6.6.6;FOR=192.0.2.7", "forwarded-syntax"),
    ],
)
def test_what_has_parameters_and_is_not_well_formed_is_refused_CVE_2026_57210(value: bytes, rule: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        OURS.client_of(PROXY, forwarded(value))
    assert caught.value.rule == rule


def test_two_fields_must_say_the_same() -> None:
    assert OURS.client_of(PROXY, [*listed(b"192.0.2.7"), *forwarded(b'for="192.0.2.7:1"')]) == "192.0.2.7"
    with pytest.raises(MalformedRequest) as caught:
        OURS.client_of(PROXY, [*listed(b"192.0.2.7"), *forwarded(b"for=192.0.2.8")])
    assert caught.value.rule == "forwarded-disagrees"


def test_proxies_in_a_row_have_a_bound() -> None:
    assert OURS.client_of(PROXY, listed(b"6.6.6.6" + b", 10.0.0.1" * (MAX_HOPS - 1))) == "6.6.6.6"
    with pytest.raises(MalformedRequest) as caught:
        OURS.client_of(PROXY, listed(b"6.6.6.6" + b", 10.0.0.1" * MAX_HOPS))
    assert caught.value.rule == "forwarded-hops"


@given(st.lists(st.tuples(st.sampled_from([b"x-forwarded-for", b"forwarded"]), st.binary(max_size=40)), max_size=4))
def test_any_value_gives_an_address_or_our_error(fields: list[tuple[bytes, bytes]]) -> None:
    try:
        OURS.client_of(PROXY, fields)
    except MalformedRequest:
        pass


def test_each_client_is_one_object_for_as_long_as_the_connection_knows_it() -> None:
    trusted = [OURS]
    peer = Peer(PROXY, 4711, PROXY, sni="localhost", tls_version="TLSv1.3", tls_cipher="x")
    client = behind(peer, lambda: trusted[0])
    found = client(listed(b"2001:db9:1:2::7"))
    assert (found.ip, found.port, found.prefix, found.sni) == ("2001:db9:1:2::7", 0, "2001:db9:1:2::/64", "localhost")
    assert found.behind is None
    assert client(listed(b"1.1.1.1, 2001:db9:1:2::7")) is found
    assert (client([]).ip, client([]).port) == (PROXY, 4711)
    for number in range(600):
        client(listed(b"192.0.%d.%d" % (number >> 8, number & 255)))
    assert client(listed(b"2001:db9:1:2::7")) is not found
    trusted[0] = NOBODY  # a reload
    assert client(listed(b"192.0.2.7")).ip == PROXY
