"""Whose request it is that a proxy hands on: `X-Forwarded-For` and `Forwarded` (RFC 7239), read from the right.

Each proxy appends who it was asked by. So from the socket's peer leftwards every word is worth as much as whoever wrote it:
while that is one of ours, the next entry is believed, and the first address that is none of ours is the client. What stands
left of it is the client's own invention and is not looked at (attacks B5). Laws:

- Nobody is trusted but who is listed; without a list no field is read, and a client's are dropped as ever.
- An entry that has to be believed and is no address is an error of the request, never a reason to take another one. In
  `Forwarded` a quotation mark may reach over any comma, so all of it has to be well-formed (CVE-2026-57210).
- Two fields are two readings: who sends both must say the same client in both.

    X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.9     from 10.0.0.8, trusted 10.0.0.0/8  →  192.0.2.7
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from edge.accept.peer import prefix_of
from edge.errors import MalformedRequest
from edge.model.http import RawField
from edge.model.identity import Peer

MAX_HOPS = 32
"""Proxies in a row; more would be a loop, or somebody who wants us to count."""
_KNOWN_CLIENTS = 256
"""Of one connection."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6 = rb"([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,41})"
_ENTRY = re.compile(rb"([0-9.]{7,15})(?::[0-9]{1,5})?|\[" + _IPV6 + rb"\](?::[0-9]{1,5})?|" + _IPV6)
"""An address, and the port that some proxies add."""
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_PAIR = rb"(" + _TOKEN + rb")=(" + _TOKEN + rb"|" + _QUOTED + rb")"
_PAIR_PATTERN = re.compile(_PAIR)
_ELEMENT = re.compile(rb"[ \t]*(?:(" + _PAIR + rb"(?:;" + _PAIR + rb")*)[ \t]*)?(?:,|\Z)")
"""Of RFC 7239 §4; empty ones are legal in a list (RFC 9110 §5.6.1)."""


@lru_cache(maxsize=4096)
def _address(ip: str) -> Address:
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Proxies:
    """Who is trusted. Never changes."""

    __slots__ = ("_networks",)

    def __init__(self, prefixes: Sequence[str] = ()) -> None:
        self._networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, prefixes))

    def trusts(self, ip: str) -> bool:
        return bool(self._networks) and self._has(_address(ip))

    def _has(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def client_of(self, ip: str, fields: Sequence[RawField]) -> str:
        """Who asks, when `ip` is the socket's peer.

        Raises: MalformedRequest; a proxy said what is no address, or two things.
        """
        if not self.trusts(ip):
            return ip
        by_list = self._nearest(ip, _listed([value for name, value in fields if name == b"x-forwarded-for"]))
        by_pairs = self._nearest(ip, _forwarded([value for name, value in fields if name == b"forwarded"]))
        if by_list is not None and by_pairs is not None and by_list != by_pairs:
            raise MalformedRequest("forwarded-disagrees")
        return by_list or by_pairs or ip

    def _nearest(self, ip: str, said: Iterator[bytes | None]) -> str | None:
        """The first that is not ours, else the last there is; None when nothing is said."""
        found: str | None = None
        for hops, entry in enumerate(said):
            if hops == MAX_HOPS:
                raise MalformedRequest("forwarded-hops")
            address = _entry(entry)
            found = str(address)
            if not self._has(address):
                break
        return found


NOBODY = Proxies()


def _entry(raw: bytes | None) -> Address:
    parsed = _ENTRY.fullmatch(raw) if raw is not None else None
    if parsed is not None:
        try:
            return _address((parsed[1] or parsed[2] or parsed[3]).decode("ascii"))
        except ValueError:
            pass  # below, as anything else that is none
    raise MalformedRequest("forwarded-address")


def _listed(values: Sequence[bytes]) -> Iterator[bytes]:
    """Of `X-Forwarded-For`, from the right."""
    for value in reversed(values):
        for entry in reversed(value.split(b",")):
            yield entry.strip(b" \t")


def _forwarded(values: Sequence[bytes]) -> Iterator[bytes | None]:
    """What each element of `Forwarded` says for `for`, from the right; None where it does not."""
    found: list[bytes | None] = []
    for value in values:
        at = 0
        while at < len(value):
            element = _ELEMENT.match(value, at)
            if element is None:
                raise MalformedRequest("forwarded-syntax")
            at = element.end()
            if element[1] is not None:
                found.append(_for(element[1]))
    return reversed(found)


def _for(element: bytes) -> bytes | None:
    pairs = [(name.lower(), value) for name, value in _PAIR_PATTERN.findall(element)]
    if len({name for name, _ in pairs}) != len(pairs):
        raise MalformedRequest("forwarded-syntax")  # RFC 7239 §4: each parameter once
    value = dict(pairs).get(b"for")
    if value is not None and value[:1] == b'"':
        return re.sub(rb"\\(.)", rb"\1", value[1:-1])
    return value


def behind(peer: Peer, proxies: Callable[[], Proxies]) -> Callable[[Sequence[RawField]], Peer]:
    """What `Peer.behind` of a proxy's connection is. `proxies` is asked each time: who lost our trust loses it at once.

    One object per client and connection, because others keep what they derive from a `Peer` by its identity.
    """
    known: dict[str, Peer] = {}

    def client(fields: Sequence[RawField]) -> Peer:
        ip = proxies().client_of(peer.ip, fields)
        found = known.get(ip)
        if found is None:
            if len(known) >= _KNOWN_CLIENTS:
                known.clear()
            port = peer.port if ip == peer.ip else 0
            found = known[ip] = replace(peer, ip=ip, port=port, prefix=prefix_of(ip), behind=None)
        return found

    return client
