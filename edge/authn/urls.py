"""Where key sets may be fetched from: the syntax of a URL, and the addresses a name may stand for.

The URL of an issuer is written by the operator, its `jwks_uri` is not, and a name resolves to whatever its owner says
(attacks E4, D7). So: one spelling of a URL, `https` only, and no address that belongs to the machine's own plumbing. Plain
`http` is taken for the loopback literals and `localhost` alone, where there is no network to attack; whoever else may bind
a port of this host could mint identities there, which SECURITY.md says.

The certificate is what proves an issuer. The address rule comes before it so that not even a ClientHello is sent to a
cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# Strict on purpose: no userinfo, no fragment, no backslash, no space, nothing that two URL parsers read in two ways.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]*)*)"
    r"(?P<query>\?[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*)?"
)
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# `2130706433`, `0177.1` and `0x7f.1` are addresses to some resolvers and names to others (WHATWG URL, inet_aton).
_NUMERIC_LAST_LABEL = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_DEFAULT_PORTS = {"https": 443, "http": 80}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class UrlRefused(ValueError):
    """The URL may not be fetched from. The text says why, in words for the operator."""


@dataclass(frozen=True, slots=True)
class FetchUrl:
    """A URL that may be fetched from."""

    text: str
    scheme: str
    host: str
    """Lower-case name, or address literal without brackets."""
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host, port: what must be equal for two URLs to be of the same party (RFC 6454 §4)."""
        return (self.scheme, self.host, self.port)


def parse(text: str) -> FetchUrl:
    """The URL in parts.

    Raises: UrlRefused.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise UrlRefused("not a plain lower-case https URL without user, fragment and blanks")
    scheme, host = found["scheme"], found["host"]
    port = int(found["port"] or _DEFAULT_PORTS[scheme])
    if port > 65535:
        raise UrlRefused("the port is above 65535")
    literal = _literal(host)
    if literal is not None:
        if not may_connect(literal):
            raise UrlRefused("the address is link-local, multicast, unspecified or a transition form of another one")
        host = str(literal)
    elif _NAME.fullmatch(host) is None or _NUMERIC_LAST_LABEL.fullmatch(host) is not None:
        raise UrlRefused("the host is neither a name nor an address in its one usual spelling")
    if scheme == "http" and not is_loopback(host):
        raise UrlRefused("plain http is for loopback only")
    return FetchUrl(text, scheme, host, port, found["path"])


def is_loopback(host: str) -> bool:
    """Whether a host as written means this machine: an address literal of it, or `localhost`."""
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


def may_connect(address: Address) -> bool:
    """Whether an issuer may live at an address. Private ranges and loopback may: many issuers do."""
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id is not None or _carries_ipv4(address)):
        return False
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or _is_reserved(address))


def may_resolve_to(url: FetchUrl, address: Address) -> bool:
    """Whether the host of `url` may stand for `address`: with plain http for loopback only, or DNS could move the fetch."""
    return may_connect(address) and (url.scheme == "https" or address.is_loopback)


# IPv4 in disguise: NAT64 (RFC 6052 §2.1), 6to4 (RFC 3056), Teredo (RFC 4380), mapped or compatible (RFC 4291 §2.5.5).
_TRANSITION = tuple(
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0/96", "::/96")
)
_LOOPBACK6 = ipaddress.IPv6Address("::1")
# fd00:ec2::254 is the metadata service of one large cloud, inside the unique-local range that is else allowed.
_METADATA6 = ipaddress.IPv6Address("fd00:ec2::254")


def _carries_ipv4(address: ipaddress.IPv6Address) -> bool:
    return address != _LOOPBACK6 and any(address in network for network in _TRANSITION)


def _is_reserved(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.IPv4Network("0.0.0.0/8") or address in ipaddress.IPv4Network("240.0.0.0/4")
    return address == _METADATA6


def _literal(host: str) -> Address | None:
    """An address literal in its canonical spelling; None for names and for every other spelling."""
    bare = host[1:-1] if host.startswith("[") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return address if str(address) == bare else None
