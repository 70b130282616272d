from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn import urls


@pytest.mark.parametrize(
    ("text", "origin", "path"),
    [
        ("https://idp.example.com/", ("https", "idp.example.com", 443), "/"),
        ("https://idp.example.com", ("https", "idp.example.com", 443), ""),
        ("https://idp.example.com:8443/realms/a/keys?v=2", ("https", "idp.example.com", 8443), "/realms/a/keys"),
        ("https://10.1.2.3/keys", ("https", "10.1.2.3", 443), "/keys"),
        ("https://[2001:db8::1]/keys", ("https", "2001:db8::1", 443), "/keys"),
        ("https://127.0.0.1:9443/keys", ("https", "127.0.0.1", 9443), "/keys"),
        ("http://127.0.0.1:8080/keys", ("http", "127.0.0.1", 8080), "/keys"),
        ("http://[::1]:8080", ("http", "::1", 8080), ""),
        ("http://localhost/", ("http", "localhost", 80), "/"),
        ("https://idp7.x9/", ("https", "idp7.x9", 443), "/"),
    ],
)
def test_usual_urls_are_taken(text: str, origin: tuple[str, str, int], path: str) -> None:
    url = urls.parse(text)
    assert (origin, path, text) == (url.origin, url.path, url.text)


@pytest.mark.parametrize(
    "text",
    [
        "http://idp.example.com/",
        "http://10.0.0.1/",
        "http://localhost.example.com/",
        "ftp://idp.example.com/",
        "HTTPS://idp.example.com/",
        "https://IDP.example.com/",
        "https://user@idp.example.com/",
        "https://user:pw@127.0.0.1/",
        "https://idp.example.com/#x",
        "https://idp.example.com\\@evil.example/",
        "https://idp.example.com/ x",
        "https://idp.example.com:0/",
        "https://idp.example.com:65536/",
        "https://idp.example.com:/",
        "https://idp..example.com/",
        "https://-idp.example.com/",
        "https://idp.example.com./",
        "https:///keys",
        "//idp.example.com/",
        "idp.example.com",
        "",
        "https://idp.example.com/\n",
        "https://idp.example.com/keys\x00",
        "https://ídp.example.com/",
    ],
)
def test_urls_with_two_readings_are_refused(text: str) -> None:
    with pytest.raises(urls.UrlRefused):
        urls.parse(text)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "0.0.0.0",
        "0.1.2.3",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "[ff02::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:1::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::ffff:7f00:1]",
        "[::a9fe:a9fe]",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "127.1",
        "127.0.0.01",
        "[0:0:0:0:0:0:0:1]",
        "[127.0.0.1]",
        "[fe80::1%25eth0]",
        "1.2.3.4.5",
    ],
)
def test_e4_addresses_of_plumbing_and_odd_spellings_are_refused(host: str) -> None:
    with pytest.raises(urls.UrlRefused):
        urls.parse(f"https://{host}/keys")


@pytest.mark.parametrize(
    ("url", "address", "expected"),
    [
        ("https://idp.example.com/", "203.0.113.7", True),
        ("https://idp.example.com/", "10.0.0.7", True),
        ("https://idp.example.com/", "127.0.0.1", True),
        ("https://idp.example.com/", "::1", True),
        ("https://idp.example.com/", "169.254.169.254", False),
        ("https://idp.example.com/", "::ffff:169.254.169.254", False),
        ("https://idp.example.com/", "fe80::1%2", False),
        ("https://idp.example.com/", "2001:db8::1%2", False),
        ("http://localhost/", "127.0.0.1", True),
        ("http://localhost/", "::1", True),
        ("http://localhost/", "203.0.113.7", False),
        ("http://localhost/", "10.0.0.7", False),
    ],
)
def test_e4_names_resolve_only_to_what_they_may_stand_for(url: str, address: str, expected: bool) -> None:
    assert expected == urls.may_resolve_to(urls.parse(url), ipaddress.ip_address(address))


def test_loopback_is_told_from_the_written_host() -> None:
    assert [
        urls.is_loopback(host) for host in ("localhost", "127.8.9.1", "::1", "10.0.0.1", "localhost.example.com")
    ] == [True, True, True, False, False]


@settings(max_examples=80)
@given(st.text(max_size=30) | st.from_regex(r"https?://[a-z0-9.:\[\]@#?/%-]{0,24}", fullmatch=True))
def test_any_text_gives_a_url_or_url_refused(text: str) -> None:
    try:
        url = urls.parse(text)
    except urls.UrlRefused:
        return
    assert urls.parse(url.text) == url
