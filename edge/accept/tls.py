"""TLS contexts: one for the public listener, one for dialling upstreams, both bare `SSLContext`s.

Bare, because `create_default_context` honours SSLKEYLOGFILE and loads the system's trust store (attacks P47). Key material
arrives as bytes, read once with the rest of the configuration; OpenSSL only takes files, so it passes through an unnamed
one in memory.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

_CIPHERS_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 with forward secrecy and AEAD only; TLS 1.3 has nothing weaker."""


class _Direct(ssl.SSLObject):
    """`read`, `write` and `pending` are OpenSSL's own: the library's wrappers cost a frame per record and do nothing here."""

    @classmethod
    def _create(cls, *arguments: Any, **named: Any) -> Any:
        session: Any = super()._create(*arguments, **named)  # type: ignore[misc]
        inner = session._sslobj
        session.read, session.write, session.pending = inner.read, inner.write, inner.pending
        return session


class _Accepted(_Direct):
    """A downstream's session: a failed handshake reports "want read" once.

    asyncio and uvloop close at the first error without flushing, so the client would never see the alert that says why
    (RFC 6066 §3 asks for `unrecognized_name`). "Want read" makes them flush; the client's next byte or its close brings the
    error back, and the handshake deadline bounds the wait.
    """

    edge_sni: str | None = None
    """Canonical server name; read by accept/peer when the handshake is done."""
    _has_told = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            if self._has_told:
                raise
            self._has_told = True
            raise ssl.SSLWantReadError from exc


def load_chain(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Load certificate chain and private key from memory.

    Raises:
        ssl.SSLError: they do not belong together, or are not PEM; told at load, before anything listens (attacks P22).
    """
    descriptor = os.memfd_create("edge-key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key_pem.rstrip() + b"\n" + chain_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1024)
def canonical_sni(name: str | None) -> str | None:
    """The server name, lower-case; absent and IP literals are None (RFC 6066 §3)."""
    if not name:
        return None
    with suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return None
    return name.lower()


def public_context(
    chain_pem: bytes, key_pem: bytes, hosts: Sequence[str], alpn: Sequence[str] = ("http/1.1",)
) -> ssl.SSLContext:
    """TLS for the public listener: 1.2 and 1.3, no client certificates, only for the names it serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Accepted
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # One per handshake: enough to resume with, and each takes 15 µs of every connection. OpenSSL would send two.
    context.num_tickets = 1
    context.set_ciphers(_CIPHERS_TLS12)
    context.set_alpn_protocols(list(alpn))
    load_chain(context, chain_pem, key_pem)
    context.sni_callback = _sni_callback(frozenset(hosts))
    return context


def _sni_callback(hosts: frozenset[str]) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    def check(handshake: ssl.SSLObject, raw_name: str | None, _: ssl.SSLContext) -> int | None:
        name = canonical_sni(raw_name)
        handshake.edge_sni = name  # type: ignore[attr-defined]
        if name is not None and name not in hosts:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    return check


def upstream_context(chain_pem: bytes, key_pem: bytes, bundle_pem: bytes) -> ssl.SSLContext:
    """TLS towards upstreams: 1.3 only, our certificate shown, their chain required.

    OpenSSL proves the chain; who it is (the SPIFFE ID) is proven by `pki.svid` after the handshake and before the first
    byte, because CPython has no verify callback. Names are not compared here: `check_hostname` knows DNS names only.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _Direct
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.hostname_checks_common_name = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    load_chain(context, chain_pem, key_pem)
    return context


def presented_chain(handshake: ssl.SSLObject) -> list[bytes]:
    """The peer's certificates as it sent them, leaf first, DER.

    Public from CPython 3.13 on; before, the same method sits on the private object (a test fails when it moves).
    """
    public = getattr(handshake, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public()]
    chain = handshake._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [certificate.public_bytes(ssl._ssl.ENCODING_DER) for certificate in chain or ()]  # type: ignore[attr-defined]
