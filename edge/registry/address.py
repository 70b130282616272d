"""Where an instance may be: the rule that keeps a registration from being a way into places that only the gateway reaches.

A registered address is dialled by the gateway, from the gateway's place in the network: server-side request forgery for
whoever may register (attacks E4, P51). So, on literal addresses only, for a name says nothing until it is resolved:

1. An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4, Teredo, ISATAP, compatible) is judged as both.
2. Link-local, metadata, multicast, broadcast, unspecified and reserved addresses are refused, whatever is configured.
3. Loopback is refused unless the operator allowed it.
4. What is left must be the address of the connection that registers, or inside the networks that the operator granted.

A name is resolved once by the caller, and what was judged here is what is dialled: there is no second look-up to turn
(DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.registry.grant import Network

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"),
    )
)
"""Where clouds tell a machine its secrets; the ones that are not link-local as well."""
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""RFC 6052 and RFC 8215; the last 32 bits are the IPv4 address, as networks commonly set it up."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_MAX_NAME = 253


@dataclass(frozen=True, slots=True)
class Announced:
    """The address of a registration, taken apart. `host` is empty for the connection's own address."""

    host: str
    port: int
    literal: Ip | None
    """None: `host` is a name, or empty."""


def parse(text: str) -> Announced | None:
    """`192.0.2.7:9101`, `[2001:db8::7]:9101`, `orders-1.internal:9101`, `:9101`; None when it is nothing of these.

    What the C library would take for an address and we would take for a name (`2130706433`, `0x7f.1`, `127.1`) is neither.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port_text, re.ASCII) or int(port_text) > 65535:
        return None
    port = int(port_text)
    if not host:
        return Announced("", port, None)
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        literal = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        literal = None
    if literal is not None:
        is_scoped = isinstance(literal, ipaddress.IPv6Address) and literal.scope_id is not None
        if is_scoped or is_bracketed is not (literal.version == 6):
            return None
        return Announced(str(literal), port, literal)
    labels = host.lower().removesuffix(".").split(".")
    is_name = len(host) <= _MAX_NAME and all(_LABEL.fullmatch(label) for label in labels)
    if not is_name or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        return None
    return Announced(host.lower(), port, None)


def refusal(address: Ip, own: Ip, granted: Sequence[Network], *, may_loopback: bool) -> str | None:
    """The rule that `address` breaks, or None: it may be dialled. `own` is where the connection comes from."""
    meant = _meant(address)
    for each in meant:
        if _is_special(each):
            return "address-special"
        if each.is_loopback and not may_loopback:
            return "address-loopback"
    if address in (own, *_meant(own)):
        return None
    # Every one of what it stands for: a NAT64 address must not reach through a grant what the grant does not name.
    if all(any(each in network for network in granted) for each in meant):
        return None
    return "address-foreign"


def _meant(address: Ip) -> tuple[Ip, ...]:
    """The address and every IPv4 address that it may stand for on the way."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    found: list[Ip] = [address]
    last = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)  # the kernel itself treats it as nothing else
    if any(address in network for network in _NAT64):
        found.append(last)
    if address in _COMPATIBLE and int(address) > 1:
        found.append(last)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(last)
    return tuple(found)


def _is_special(address: Ip) -> bool:
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return address in _THIS_NETWORK or address.is_reserved  # 240/4, the broadcast address with it
    return address in _SITE_LOCAL
