"""TLS contexts: for the public listener, for those of the control plane, for dialling upstreams; all bare `SSLContext`s.

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
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from edge.accept.client_hello import (
    DECODE_ERROR,
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    BadHello,
    ClientHello,
    HelloReader,
)
from edge.errors import CredentialMissing, CredentialRejected, MalformedRequest, Refusal
from edge.model.identity import ClientCertificate

_CIPHERS_TLS12 = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""TLS 1.2 with forward secrecy and AEAD only; TLS 1.3 has nothing weaker. The level refuses SHA-1 and keys below 112 bits."""
_ALERT = bytes((21, 3, 3, 0, 2, 2))
"""The record of a fatal alert but for its last byte, as it is sent before there are keys."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    chain_pem: bytes
    """Leaf first."""
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """What clients see who ask for one of `hosts`."""

    hosts: tuple[str, ...]
    pairs: tuple[Pair, ...]
    """One or two key types; of those of one type the first is shown."""


REFUSED: ContextVar[Callable[[ssl.SSLError], None] | None] = ContextVar("edge_handshake_refused", default=None)
"""Told why a handshake fails that was begun in this context. The loops tell nobody: by then the first error is lost."""


def _reading(inner: Any, incoming: ssl.MemoryBIO) -> Callable[..., Any]:
    """`read` that asks OpenSSL only while there is something to read.

    The loops read until "want read" is raised, once too often for each piece that comes; OpenSSL's own error costs 1.1 µs to
    make, this one a third of it. Nothing is hidden: with no byte come and none decrypted there is no other answer.
    """
    read, pending, want_read = inner.read, inner.pending, ssl.SSLWantReadError

    def direct(*arguments: Any) -> Any:
        if incoming.pending or incoming.eof or pending():
            return read(*arguments)
        raise want_read

    return direct


class _Direct(ssl.SSLObject):
    """`read`, `write` and `pending` are OpenSSL's own: the library's wrappers cost a frame per record and do nothing here."""

    @classmethod
    def _create(cls, incoming: Any, *arguments: Any, **named: Any) -> Any:
        session: Any = super()._create(incoming, *arguments, **named)  # type: ignore[misc]
        inner = session._sslobj
        session.read, session.write, session.pending = _reading(inner, incoming), inner.write, inner.pending
        return session


class _Accepted(_Direct):
    """A downstream's session: its ClientHello is looked at before OpenSSL does, and a failed handshake says "want read" once.

    asyncio and uvloop close at the first error without flushing, so the client would never see the alert that says why
    (RFC 6066 §3 asks for `unrecognized_name`). "Want read" makes them flush; the client's next byte or the end of reading,
    which the gate brings about at once, brings the error back.
    """

    edge_sni: str | None = None
    """Canonical server name; read by accept/peer when the handshake is done."""
    edge_hello: ClientHello | None = None
    """The one that the name callback is about to judge."""
    edge_client: ClientCertificate | None = None
    """Who the client proved to be; set by the front before anything is read, read by accept/peer."""
    _failure: ssl.SSLError | None = None
    _refused: Callable[[ssl.SSLError], None] | None = None
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _reader: HelloReader

    @classmethod
    def _create(cls, incoming: Any, outgoing: Any, *arguments: Any, **named: Any) -> Any:
        session = super()._create(incoming, outgoing, *arguments, **named)
        session._incoming, session._outgoing, session._reader = incoming, outgoing, HelloReader()
        session._refused = REFUSED.get()
        return session

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise _bare(self._failure)
        if not (self._incoming.pending or self._incoming.eof):
            raise ssl.SSLWantReadError  # the loops begin before they have read; OpenSSL would say the same for 3 µs more
        try:
            self._look()
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            self._failure = _bare(exc)
            refused, self._refused = self._refused, None
            if refused is not None:
                refused(exc)
            raise ssl.SSLWantReadError from exc
        self._refused = None
        del self._reader, self._incoming, self._outgoing  # nobody shakes hands twice

    def _look(self) -> None:
        """Read what came, and put it back. OpenSSL asks for more only when it has taken all, so nothing is seen twice."""
        piece = self._incoming.read()
        if not piece:
            return
        self._incoming.write(piece)
        try:
            self.edge_hello = self._reader.feed(piece) or self.edge_hello
        except BadHello as exc:
            self._outgoing.write(_ALERT + bytes((exc.alert,)))
            raise ssl.SSLError(str(exc)) from exc


def _bare(error: ssl.SSLError) -> ssl.SSLError:
    """The same error without where it came from: its frames name the session that keeps it, and a flood of failed handshakes
    would wait for the collector with all their buffers."""
    bare = type(error)(*error.args)
    vars(bare).update(vars(error))  # library and reason, where OpenSSL gave them
    return bare


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


def public_context(shown: Sequence[Shown], alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """TLS for the public listener: 1.2 and 1.3, no client certificates, only for the names it serves.

    `shown[0]` is for clients that name no host. Each entry becomes a context of its own, which the name callback puts in the
    place of the first: OpenSSL has no other way to choose a certificate.
    """
    contexts = [_public_context(each.pairs, alpn) for each in shown]
    by_host = {host: context for each, context in zip(shown, contexts, strict=True) for host in each.hosts}
    contexts[0].sni_callback = _sni_callback(by_host, frozenset(name.encode("ascii") for name in alpn))
    return contexts[0]


def _public_context(pairs: Sequence[Pair], alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Accepted
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # One per handshake: enough to resume with, and each takes 15 µs of every connection. OpenSSL would send two.
    context.num_tickets = 1
    context.set_ciphers(_CIPHERS_TLS12)
    context.set_alpn_protocols(list(alpn))
    for pair in reversed(pairs):  # of one key type the last one loaded stays
        load_chain(context, pair.chain_pem, pair.key_pem)
    return context


def control_context(
    pair: Pair, client_anchors_pem: bytes | None, alpn: Sequence[str] = ("h2", "http/1.1")
) -> ssl.SSLContext:
    """TLS for the services listener and for a sidecar's, where a client certificate is required, and for enrol, where none is
    asked for.

    1.3 only, and without tickets: a resumed session would carry yesterday's proof past a revocation (attacks P29, P42).
    `client_anchors_pem`: whom OpenSSL believes about clients; None: clients are not asked. Any server name will do: there is
    one application behind it, and services reach it by address.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Accepted
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(list(alpn))
    load_chain(context, pair.chain_pem, pair.key_pem)
    context.sni_callback = _sni_callback(None, frozenset(name.encode("ascii") for name in alpn))
    if client_anchors_pem is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=client_anchors_pem.decode("ascii"))
    return context


# X509_V_ERR_* of OpenSSL → a rule of `pki.profile.RULES`.
_VERIFY_RULES = {
    9: "not-yet-valid",
    10: "expired",
    23: "revoked",
    26: "extended-key-usage",
    66: "key-type",
    67: "key-type",
}


def handshake_refusal(error: ssl.SSLError) -> Refusal:
    """Why a handshake was refused, in the words of the access log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CredentialRejected(_VERIFY_RULES.get(error.verify_code, "untrusted"), error.verify_message)
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return CredentialMissing("client-certificate")
    return MalformedRequest("tls-handshake", error.reason or "")


def _sni_callback(
    contexts: dict[str, ssl.SSLContext] | None, protocols: frozenset[bytes]
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    """Called for each ClientHello that OpenSSL understood, also for one without a name; gives the alert that ends it.

    `contexts` None: any name will do.
    """

    def check(handshake: ssl.SSLObject, raw_name: str | None, _: ssl.SSLContext) -> int | None:
        hello: ClientHello | None = handshake.edge_hello  # type: ignore[attr-defined]
        handshake.edge_hello = None  # type: ignore[attr-defined]
        if hello is None:
            return DECODE_ERROR
        asked = hello.server_name.decode("ascii") if hello.server_name is not None else None
        # Of a resumed session OpenSSL tells the name of then; what is asked now counts (RFC 6066 §3).
        if asked != raw_name and not handshake.session_reused:
            return DECODE_ERROR  # the two parsers do not agree on what was asked
        if hello.alpn is not None and protocols.isdisjoint(hello.alpn):
            return NO_APPLICATION_PROTOCOL
        name = canonical_sni(asked)
        handshake.edge_sni = name  # type: ignore[attr-defined]
        if name is not None and contexts is not None:
            chosen = contexts.get(name)
            if chosen is None:
                return UNRECOGNIZED_NAME
            if chosen is not handshake.context:
                handshake.context = chosen
        return None

    return check


def upstream_context(chain_pem: bytes, key_pem: bytes, bundle_pem: bytes) -> ssl.SSLContext:
    """TLS towards upstreams: `anonymous_context`, and our certificate shown."""
    context = anonymous_context(bundle_pem)
    load_chain(context, chain_pem, key_pem)
    return context


def anonymous_context(bundle_pem: bytes) -> ssl.SSLContext:
    """TLS towards upstreams without a certificate of ours: 1.3 only, their chain required.

    OpenSSL proves the chain; who it is (the SPIFFE ID) is proven by `pki.svid` after the handshake and before the first
    byte, because CPython has no verify callback. Names are not compared here: `check_hostname` knows DNS names only.
    """
    context = _dialling()
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=bundle_pem.decode("ascii"))
    return context


def unproven_context() -> ssl.SSLContext:
    """TLS 1.3 in which nobody is believed and no chain is looked at: for the one question whose answer is public and held
    against a fingerprint before anything is done with it, which is whom to trust (RFC 7030 §4.1.1)."""
    context = _dialling()
    context.verify_mode = ssl.CERT_NONE
    return context


def _dialling() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = _Direct
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
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
