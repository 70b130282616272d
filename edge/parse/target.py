"""The one reading of a request target and of a host (RFC 3986, RFC 9112 §3.2): what policy, log and upstream all see.

This room decides which spellings of a path and of an authority exist at all. Two parties that read one target
differently are the root of most gateway bypasses (attacks A1–A7, A10, A11), so every target has exactly one canonical
form, and what could be read in two ways is refused, never repaired. Which route a path belongs to is `routing`'s.

Laws, over the path:
1. It starts with `/`: absolute-form, authority-form and `*` are refused, and so is a fragment anywhere.
2. Escapes of unreserved characters are decoded, once; all others stay, in upper case. Printable characters that RFC
   3986 does not allow in a path, and valid UTF-8 sent raw, become escapes. Nothing else is changed.
3. Refused: broken escapes, invalid UTF-8, control bytes and spaces, `\\` and `%5C`, empty segments (`//`), and dot
   segments in any encoding, with or without `;parameters`.
4. An escape may not hide another one: `%252F`, `%255C`, `%2500` and dot segments below several encodings are refused,
   because an upstream that decodes twice is common.
5. `%2F` is kept and flagged: whether it is allowed is a property of the route, which is found later.

    b"/orders/%37?x=%2e"  →  Target(path="/orders/7", raw_query=b"x=%2e", has_query=True, has_encoded_slash=False)

Canonicalising a canonical path gives the same path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import unquote_to_bytes

from edge.errors import MalformedRequest

_UNRESERVED = rb"A-Za-z0-9._~\-"
_PCHAR = _UNRESERVED + rb"!$&'()*+,=:@"  # `;` is allowed too, but only the careful path looks at it

# The plain target, which is nearly every one: no escape, no `;`, no empty segment, no dot segment. One match, no loop.
_PLAIN = re.compile(rb"(?=/)((?:/(?!\.\.?(?:[/?]|\Z))[" + _PCHAR + rb"]+)*/?)(?:(\?)([!\"$-~]*))?")
_QUERY_PRINTABLE = re.compile(rb"[!\"$-~]*")

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_TO_ESCAPE = re.compile(rb"[^" + _PCHAR + rb";/%]")
_CONTROL_OR_SPACE = re.compile(rb"[\x00-\x20\x7f]")
_ESCAPED_CONTROL = re.compile(rb"%(?:[01][0-9A-F]|7F)")
_SEPARATOR = re.compile(rb"[/\\]")
_HIDING = re.compile(rb"[/\\\x00-\x1f\x7f]")
_UNRESERVED_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_MAX_NESTING = 8


# Not frozen: built once per request on the hot path (style §2, Pure core).
@dataclass(slots=True, eq=False)
class Target:
    """A canonical request target."""

    path: str
    """Starts with `/`; ASCII; `%XX` in upper case."""
    raw_query: bytes
    """As sent, printable ASCII; raw UTF-8 in it became escapes. Empty when there is none."""
    has_query: bool
    has_encoded_slash: bool
    """The path holds `%2F`; the route must allow it."""


def canonicalize(raw_target: bytes, *, encoded_slash: bool) -> Target:
    """The canonical form of an origin-form target (design §6, Paths).

    `encoded_slash`: keep `%2F` for the route to decide; otherwise it is refused here.
    Raises: MalformedRequest; then 400.
    """
    plain = _PLAIN.fullmatch(raw_target)
    if plain is not None:
        raw_path, mark, raw_query = plain.groups()
        return Target(raw_path.decode("ascii"), raw_query or b"", mark is not None, False)
    return _canonicalize_carefully(raw_target, encoded_slash)


def _canonicalize_carefully(raw_target: bytes, encoded_slash: bool) -> Target:
    if raw_target[:1] != b"/":
        raise MalformedRequest("target-form", "the target does not start with a slash")
    if b"#" in raw_target:
        raise MalformedRequest("target-fragment")
    if _CONTROL_OR_SPACE.search(raw_target):
        raise MalformedRequest("target-control-byte")
    raw_path, mark, raw_query = raw_target.partition(b"?")
    path = _canonical_path(raw_path)
    has_encoded_slash = b"%2F" in path
    if has_encoded_slash and not encoded_slash:
        raise MalformedRequest("path-encoded-slash")
    return Target(path.decode("ascii"), _canonical_query(raw_query), bool(mark), has_encoded_slash)


def _canonical_path(raw_path: bytes) -> bytes:
    """Laws 2–4; the order matters: what is looked at later relies on what was refused before."""
    if _BROKEN_ESCAPE.search(raw_path):
        raise MalformedRequest("path-broken-escape")
    _require_utf8(unquote_to_bytes(raw_path), "path-not-utf8")
    if b"\\" in raw_path:
        raise MalformedRequest("path-backslash")
    path = _TO_ESCAPE.sub(_escape, _ESCAPE.sub(_decode_unreserved, raw_path))
    if _ESCAPED_CONTROL.search(path):
        raise MalformedRequest("path-control-byte")
    if b"%5C" in path:
        raise MalformedRequest("path-backslash")
    segments = path.split(b"/")[1:]
    for segment in segments[:-1]:
        # `/;x/` too: servers that drop parameters make an empty segment of it.
        if not segment or segment[:1] == b";" or segment[:3] == b"%3B":
            raise MalformedRequest("path-empty-segment")
    for segment in segments:
        if b"." in segment or b"%2" in segment:
            _follow_escapes(segment)
    return path


def _follow_escapes(segment: bytes) -> None:
    """Law 4: decode again and again, as some chain of servers might, and look at what comes out each time.

    Raises: MalformedRequest for a dot segment (alone, before `;`, or beside a hidden slash) at any depth, and for a
    separator or control byte that appears below the first.
    """
    hidden = 0
    for depth in range(_MAX_NESTING):
        for part in _SEPARATOR.split(segment):
            if part.partition(b";")[0] in (b".", b".."):
                raise MalformedRequest("path-dot-segment")
        decoded = unquote_to_bytes(segment)
        if decoded == segment:
            return
        found = len(_HIDING.findall(decoded))
        if depth and found > hidden:
            break
        segment, hidden = decoded, found
    raise MalformedRequest("path-nested-escape")


def _canonical_query(raw_query: bytes) -> bytes:
    """The query is passed on as sent; it takes no part in matching the path (attack A5)."""
    if _QUERY_PRINTABLE.fullmatch(raw_query):
        return raw_query
    _require_utf8(raw_query, "query-not-utf8")
    return b"".join(b"%%%02X" % byte if byte > 0x7E else bytes((byte,)) for byte in raw_query)


def _require_utf8(raw: bytes, rule: str) -> None:
    try:
        raw.decode("utf-8")  # strict: overlong forms and surrogates are errors (attack A7)
    except UnicodeDecodeError as exc:
        raise MalformedRequest(rule) from exc


def _decode_unreserved(escape: re.Match[bytes]) -> bytes:
    byte = int(escape[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED_BYTES else escape[0].upper()


def _escape(character: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(character[0])


# A registered name as DNS knows it (letters, digits, hyphen; underscore because some internal names have it) or an
# address, then a port without leading zeros. No user part, no trailing dot, no percent-encoding.
_HOST = re.compile(
    rb"((?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*([A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
    rb"|\[[0-9A-Fa-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?"
)
_ENDS_IN_NUMBER = re.compile(rb"[0-9]+|0[Xx][0-9A-Fa-f]*")
_MAX_HOST_BYTES = 253


def canonical_host(raw_host: bytes) -> tuple[str, str]:
    """`Host` or `:authority` → (host, authority), both lower-case; the host without port, an IPv6 literal in brackets.

    b"API.example.com:8443" → ("api.example.com", "api.example.com:8443").
    Raises: MalformedRequest; then 400 (RFC 9112 §3.2). Whether the host is served here is `routing`'s to say.
    """
    parsed = _HOST.fullmatch(raw_host)
    if parsed is None or len(parsed[1]) > _MAX_HOST_BYTES:
        raise MalformedRequest("host-syntax")
    raw_name, raw_last_label, raw_port = parsed.groups()
    host: str = raw_name.decode("ascii").lower()
    if raw_last_label is None or raw_last_label[0] in b"0123456789":
        host = _canonical_address(host, raw_last_label)
    if raw_port is None:
        return host, host
    if len(raw_port) == 5 and int(raw_port) > 65535:
        raise MalformedRequest("host-syntax", "port above 65535")
    return host, f"{host}:{raw_port.decode('ascii')}"


def _canonical_address(host: str, raw_last_label: bytes | None) -> str:
    """Addresses have many spellings (`127.1`, `0x7f.1`, `[0:0::1]`): dotted quads and RFC 5952 only leave here."""
    try:
        if raw_last_label is None:
            return f"[{IPv6Address(host[1:-1])}]"
        if _ENDS_IN_NUMBER.fullmatch(raw_last_label):
            return str(IPv4Address(host))
    except AddressValueError as exc:
        raise MalformedRequest("host-syntax", "not an address") from exc
    return host
