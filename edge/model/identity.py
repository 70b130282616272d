"""Who is at the other end (`Peer`) and who was authenticated (`Principal`)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.model.http import RawField


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client proved itself with in its handshake."""

    spiffe_id: str
    sha256: str
    """Of the leaf, hexadecimal."""
    chain: tuple[bytes, ...]
    """As presented, leaf first, DER."""
    certificates: tuple[tuple[bytes, int], ...]
    """What its proof rests on, as a revocation names them: (SHA-256 of the issuer's public key, serial)."""


@dataclass(slots=True, eq=False)
class Peer:
    """The downstream's connection, as TLS and the socket tell it. One object per connection."""

    ip: str
    port: int
    prefix: str
    """Address prefix that budgets are kept by: the IPv4 address, or the first 64 bits of the IPv6 address."""
    sni: str | None
    """TLS server name, lower-case; None when absent or an IP literal (RFC 6066 §3)."""
    tls_version: str
    tls_cipher: str
    spiffe_id: str | None = None
    """Proven identity of the client certificate; None when the listener does not ask for one."""
    certificate_sha256: str | None = None
    """Of the client's leaf, hexadecimal."""
    chain: tuple[bytes, ...] = ()
    """What the client presented, leaf first, DER; empty when the listener does not ask. OpenSSL proved it in the handshake;
    who it is, `authn.mtls` proves again at each request, because certificates end and trust changes under a connection."""
    certificates: tuple[tuple[bytes, int], ...] = ()
    """What that proof rests on; a connection is cut when one of them is revoked."""
    behind: Callable[[Sequence[RawField]], Peer] | None = None
    """Of a proxy that is trusted: who asks, by the fields of one request (`accept.proxies`). None: the connection itself."""


_TLS_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def tls_extension(peer: Peer) -> dict[str, object]:
    """What ASGI's TLS extension (0.2) says of a connection: `scope["extensions"]["tls"]`, certificates in PEM, leaf first."""
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der) for der in peer.chain],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(peer.tls_version),
        "cipher_suite": None,
    }


class Lapsing(Protocol):
    """What a credential was verified with, and until when that may be relied on (nanoseconds since the epoch)."""

    valid_until_ns: int


# Judged at every use of a remembered credential: not frozen, see the note in model/http.py.
@dataclass(slots=True, eq=False)
class Standing:
    """How long a verified credential speaks for its principal: by its own dates, and as long as its key is relied on."""

    key: Lapsing
    not_before_ns: int
    expires_ns: int

    def holds(self, now_ns: int) -> bool:
        """Whether what was verified still holds; `now_ns` since the epoch."""
        return self.not_before_ns <= now_ns < self.expires_ns and now_ns < self.key.valid_until_ns


# Identity is the object: steps key their small per-principal caches by it, so `eq=False`.
@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Principal:
    """Who was authenticated. Anonymous is a value (`ANONYMOUS`), never None. Built only inside `authn/`."""

    method: str
    """Name of the authentication method: `jwt`, … or `anonymous`."""
    issuer: str
    subject: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    tenant: str | None = None
    client_id: str | None = None
    acr: str | None = None
    issued_ns: int = 0
    """`iat` of the token in nanoseconds since the epoch; 0 where there is none."""
    expires_ns: int = 0
    """`exp` of the token in nanoseconds since the epoch; 0 = does not expire."""
    jwt_kid: str | None = None
    jwt_alg: str | None = None
    jwt_id: str | None = None
    standing: Standing | None = None
    """None where nothing was presented with the request itself: anonymous, or proven by the connection."""

    @property
    def is_anonymous(self) -> bool:
        return self.method == "anonymous"

    @property
    def uid(self) -> str:
        """`<issuer>#<subject>`, the uid of `Edge::User`."""
        return f"{self.issuer}#{self.subject}"


ANONYMOUS = Principal(method="anonymous", issuer="", subject="")
