"""TLS and socket facts of a connection → `Peer`. Nothing of it is ever read from a header."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Protocol

from edge.model.identity import Peer


class Transport(Protocol):
    """The part of `asyncio.BaseTransport` that knows the facts."""

    def get_extra_info(self, name: str, default: object = None) -> object: ...


@lru_cache(maxsize=4096)
def prefix_of(ip: str) -> str:
    """What budgets are kept by: an IPv4 address, or the /64 of an IPv6 address, which one customer usually has whole."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


def alpn_of(transport: Transport) -> str | None:
    """The protocol that the handshake chose (RFC 7301); None when the client named none."""
    ssl_object = transport.get_extra_info("ssl_object")
    chosen = getattr(ssl_object, "selected_alpn_protocol", None)
    return chosen() if chosen is not None else None


def peer_of(transport: Transport) -> Peer:
    """The facts of a connection whose handshake is done."""
    name = transport.get_extra_info("peername")
    ip, port = (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else ("0.0.0.0", 0)  # noqa: S104
    ssl_object = transport.get_extra_info("ssl_object")
    cipher = transport.get_extra_info("cipher")
    version = ssl_object.version() if ssl_object is not None and hasattr(ssl_object, "version") else None
    client = getattr(ssl_object, "edge_client", None)
    return Peer(
        ip=ip,
        port=port,
        prefix=prefix_of(ip),
        sni=getattr(ssl_object, "edge_sni", None),
        tls_version=version or "",
        tls_cipher=str(cipher[0]) if isinstance(cipher, tuple) else "",
        spiffe_id=client.spiffe_id if client is not None else None,
        certificate_sha256=client.sha256 if client is not None else None,
        chain=client.chain if client is not None else (),
        certificates=client.certificates if client is not None else (),
    )
