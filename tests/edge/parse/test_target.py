"""The canonical form of targets and hosts. Attack ids are those of SECURITY.md."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import MalformedRequest
from edge.parse.target import canonical_host, canonicalize


def canonical(raw_target: bytes) -> str:
    return canonicalize(raw_target, encoded_slash=True).path


@pytest.mark.parametrize(
    ("raw_target", "path"),
    [
        (b"/", "/"),
        (b"/orders/7", "/orders/7"),
        (b"/orders/", "/orders/"),
        (b"/.well-known/jwks.json", "/.well-known/jwks.json"),
        (b"/...", "/..."),
        (b"/a..b/..c", "/a..b/..c"),
        (b"/v1;k=v/x", "/v1;k=v/x"),
        (b"/orders;v=1", "/orders;v=1"),
        (b"/!$&'()*+,=:@~-_", "/!$&'()*+,=:@~-_"),
        (b"/%6F%72ders/%37%2d", "/orders/7-"),  # unreserved: decoded
        (b"/a%40b%3b", "/a%40b%3B"),  # reserved: kept, upper case (A2)
        (b"/a|b[c]", "/a%7Cb%5Bc%5D"),
        (b'/{"x"}', "/%7B%22x%22%7D"),
        ("/é".encode(), "/%C3%A9"),
        (b"/%c3%a9", "/%C3%A9"),
        (b"/100%25", "/100%25"),
        (b"/a%252eb", "/a%252eb"),
        (b"/%E2%80%8b", "/%E2%80%8B"),
    ],
)
def test_each_path_has_one_canonical_form(raw_target: bytes, path: str) -> None:
    assert canonical(raw_target) == path


@pytest.mark.parametrize(
    ("raw_target", "rule"),
    [
        *(
            (each, "target-form")
            for each in (b"", b"*", b"orders", b"?a", b"@evil", b"http://h/", b"h:443", b"%2Forders")
        ),
        *((each, "target-fragment") for each in (b"/a#b", b"/a?b#c", b"/#")),
        *(
            (each, "target-control-byte")
            for each in (b"/a b", b"/a\tb", b"/a\x00", b"/\x7f", b"/a?b c", b"/a?\r\n", b"/ ")
        ),
        *((each, "path-broken-escape") for each in (b"/%", b"/a%2", b"/%zz", b"/%u002e", b"/%%32e")),
        *((each, "path-not-utf8") for each in (b"/%ff", b"/\xe9", b"/%C0%AE", b"/%c0%af", b"/%ED%A0%80", b"/%E2%80")),
        *((each, "path-control-byte") for each in (b"/%00", b"/a%0d%0aX", b"/%1F", b"/%7f", b"/a%09")),
        *((each, "path-backslash") for each in (b"/a\\b", b"/%5c", b"/a%5Cb", b"/..\\")),
        *((each, "path-empty-segment") for each in (b"//", b"//a", b"/a//b", b"/a//", b"/;x/a", b"/a/;/b", b"/%3bx/a")),
        *((each, "path-nested-escape") for each in (b"/a%252fb", b"/%25%32%66", b"/%2500", b"/%25250A", b"/%25%2532f")),
    ],
)
def test_A4_A7_A10_ambiguous_target_is_refused(raw_target: bytes, rule: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        canonicalize(raw_target, encoded_slash=True)
    assert refused.value.rule == rule


@pytest.mark.parametrize("dots", [b".", b"..", b"%2e", b"%2E%2e", b".%2e", b"%252e%252e", b"%25252e", b"%25%32%65"])
@pytest.mark.parametrize("suffix", [b"", b";", b";a=b", b"%3b", b"%3Ba=b", b"%253b"])
@pytest.mark.parametrize("frame", [b"/%b", b"/a/%b", b"/a/%b/", b"/a/%b/b", b"/a/%b?q"])
def test_A1_A3_dot_segment_is_refused_in_every_disguise(dots: bytes, suffix: bytes, frame: bytes) -> None:
    with pytest.raises(MalformedRequest):
        canonical(frame % (dots + suffix))


@pytest.mark.parametrize("raw_target", [b"/a%2f..%2fb", b"/..%2fa", b"/a%2F%2e%2e", b"/a%2f.;x%2fb"])
def test_A1_dot_segment_beside_an_encoded_slash_is_refused_even_where_slashes_are_allowed(raw_target: bytes) -> None:
    with pytest.raises(MalformedRequest, match="path-dot-segment"):
        canonicalize(raw_target, encoded_slash=True)


def test_encodings_nested_too_deep_to_follow_are_refused() -> None:
    with pytest.raises(MalformedRequest, match="path-nested-escape"):
        canonical(b"/%" + b"25" * 20 + b"41.")


def test_encoded_slash_is_kept_and_flagged_for_the_route_to_decide() -> None:
    target = canonicalize(b"/a%2fb", encoded_slash=True)
    assert (target.path, target.has_encoded_slash) == ("/a%2Fb", True)
    assert not canonicalize(b"/a/b", encoded_slash=True).has_encoded_slash


def test_encoded_slash_is_refused_where_nobody_decides_later() -> None:
    with pytest.raises(MalformedRequest, match="path-encoded-slash"):
        canonicalize(b"/a%2fb", encoded_slash=False)


@pytest.mark.parametrize(
    ("raw_target", "raw_query", "has_query"),
    [
        (b"/a", b"", False),
        (b"/a?", b"", True),
        (b"/a?x=1&y=%2e%2e/", b"x=1&y=%2e%2e/", True),
        (b"/a?x?y", b"x?y", True),
        (b"/a?q=100%", b"q=100%", True),
        ("/a?q=é".encode(), b"q=%C3%A9", True),
        (b"/%61?b|c", b"b|c", True),
    ],
)
def test_A5_query_is_passed_on_apart_from_the_path(raw_target: bytes, raw_query: bytes, has_query: bool) -> None:
    target = canonicalize(raw_target, encoded_slash=True)
    assert (target.path, target.raw_query, target.has_query) == ("/a", raw_query, has_query)


def test_query_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(MalformedRequest, match="query-not-utf8"):
        canonical(b"/a?\xff")


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from([b"/", b".", b"%2e", b"%2f", b"%25", b";", b"a", b"\\", b"?", b"#", b"\xc3\xa9", b"|", b"%5c",
                                 b"%00", b"%41", b"*", b" "]), max_size=12))  # fmt: skip
def test_any_target_gives_a_canonical_value_or_our_error(parts: list[bytes]) -> None:
    try:
        target = canonicalize(b"/" + b"".join(parts), encoded_slash=True)
    except MalformedRequest:
        return
    again = canonicalize(target.path.encode("ascii"), encoded_slash=True)
    assert again.path == target.path
    assert re.fullmatch(r"/|(?:/(?!\.{1,2}(?:;|/|$))[!$&-.0-;=@-Z_a-z~%]+)+/?", target.path)
    assert not re.search(r"%[0-9A-F]?[a-f]", target.path)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_give_a_value_or_our_error(raw: bytes) -> None:
    for function in (lambda: canonicalize(raw, encoded_slash=False), lambda: canonical_host(raw)):
        try:
            function()
        except MalformedRequest:
            pass


@pytest.mark.parametrize(
    ("raw_host", "expected"),
    [
        (b"localhost", ("localhost", "localhost")),
        (b"API.Example.com:8443", ("api.example.com", "api.example.com:8443")),
        (b"a_b.svc", ("a_b.svc", "a_b.svc")),
        (b"127.0.0.1:80", ("127.0.0.1", "127.0.0.1:80")),
        (b"[::1]:443", ("[::1]", "[::1]:443")),
        (b"[0:0:0::1]", ("[::1]", "[::1]")),
        (b"[2001:DB8::A]:1", ("[2001:db8::a]", "[2001:db8::a]:1")),
        (b"h:65535", ("h", "h:65535")),
        (b"1.example", ("1.example", "1.example")),
        (b"7up", ("7up", "7up")),
    ],
)
def test_host_has_one_spelling(raw_host: bytes, expected: tuple[str, str]) -> None:
    assert canonical_host(raw_host) == expected


@pytest.mark.parametrize(
    "raw_host",
    [
        b"", b":80",
        b"h:", b"h:0", b"h:065", b"h:65536", b"h:999999", b"h:8x", b"h:80:80", b"h.", b".h", b"a..b", b"-a", b"a-",
        b"a.-b", b"user@h", b"h/x", b"h?x", b"h#x",
        b"h\\x", b"h x", b" h", b"h\t", b"h,h", b"%68", b"*.h", "é.h".encode(), b"h\x00",
        b"a" * 64, b"a." * 126 + b"aa", b"127.1", b"0x7f.1",
        b"2130706433", b"0177.0.0.1", b"127.0.0.256", b"1.2.3.4.5", b"0x7f",
        b"[::1", b"::1", b"[::1]x", b"[::1%25eth0]", b"[::g]", b"[1.2.3.4]", b"[]", b"[::1]:", b"http://h",
    ],
)  # fmt: skip
def test_A11_host_of_another_syntax_is_refused(raw_host: bytes) -> None:
    with pytest.raises(MalformedRequest, match="host-syntax"):
        canonical_host(raw_host)
