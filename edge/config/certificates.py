"""What the public listener shows: the certificates that edge.yaml gives, or the one of the mini-CA; which host gets which.

    tls: {certificate: api.pem, key: api.key}
    tls:
      - {certificate: api.pem, key: api.key}                              # the first is also for clients that name no host
      - {certificate: api-rsa.pem, key: api-rsa.key}                      # another key type for the same names
      - {certificate: star.pem, key: star.key, hosts: [b.example.com]}    # a wildcard, for this host alone

A host gets the certificates that name it, before those whose wildcard covers it, each in the order of the file. Names are the
DNS names and addresses of the subject alternative name; the common name is not read, and no client reads it either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.accept.tls import Pair, Shown
from edge.config.document import Document, Step
from edge.config.edge_file import CertificateShape, EdgeShape, parse_host
from edge.config.services import unknown_host
from edge.config.settings import CertificateFacts, Identity
from edge.config.sources import Sources
from edge.config.trust import given_pair, issued_pair
from edge.errors import Fault

_WAY: tuple[Step, ...] = ("listeners", "public", "tls")


@dataclass(frozen=True, slots=True)
class Front:
    """What the public listener shows. `shown` is empty while the mini-CA has not issued it."""

    shown: tuple[Shown, ...]
    uncovered: tuple[str, ...]
    certificates: tuple[CertificateFacts, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    pair: Pair
    exact: frozenset[str]
    parents: frozenset[str]
    """`example.com` for `*.example.com`, which covers one label and no more (RFC 9525 §6.3)."""
    hosts: tuple[str, ...] | None
    """As edge.yaml limits it."""

    def rank(self, host: str) -> int | None:
        """0: by name, 1: by wildcard, None: not at all."""
        if self.hosts is not None and host not in self.hosts:
            return None
        return 0 if host in self.exact else 1 if host.partition(".")[2] in self.parents else None


def front(edge: EdgeShape, hosts: tuple[str, ...], document: Document, sources: Sources, faults: list[Fault]) -> Front:
    """`hosts` are those of the listener, canonical."""
    given = edge.listeners.public.tls
    if given is None:
        return _issued(edge, hosts, document, sources, faults)
    is_list = bool((node := document.node(_WAY)) is not None and node.items)
    candidates, facts = [], []
    for at, shape in enumerate(given):
        way = (*_WAY, at) if is_list else _WAY
        found = given_pair(way, shape.certificate, shape.key, document, sources, faults)
        if found.leaf is None:
            continue
        candidate = _candidate(Pair(found.chain, found.key.reveal()), found.leaf, shape)
        faults += _flaws(candidate, hosts, document, way)
        candidates.append(candidate)
        name = f"public:{shape.certificate}" if len(given) > 1 else "public"
        place = (document.file, *document.place((*way, "certificate")))
        foreign = "" if any(candidate.rank(host) is not None for host in hosts) else _names(candidate)
        facts.append(_facts(name, found.leaf, place, foreign))
    if len(candidates) < len(given):
        return Front((), (), ())
    return Front(*_by_host(candidates, hosts), tuple(facts))


def _issued(
    edge: EdgeShape, hosts: tuple[str, ...], document: Document, sources: Sources, faults: list[Fault]
) -> Front:
    if edge.identity is not None:
        message = "with identity: no CA of ours is used, so the certificate must be given"
        faults.append(document.fault(_WAY[:-1], "missing-key", message, "add tls: {certificate, key}"))
    found = issued_pair(f"{edge.state}/identity/public", sources, faults)
    if found.leaf is None:
        return Front((), (), ())
    # Names are not judged: when `hosts` has changed, it is renewed before it serves.
    return Front((Shown(hosts, (Pair(found.chain, found.key.reveal()),)),), (), (_facts("public", found.leaf),))


def _candidate(pair: Pair, leaf: x509.Certificate, shape: CertificateShape) -> _Candidate:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, ValueError):
        dns, addresses = [], []
    exact = {name for name in dns if not name.startswith("*.")}
    exact |= {host for address in addresses if (host := parse_host(address)) is not None}
    parents = {name[2:] for name in dns if name.startswith("*.") and "." in name[2:]}  # no client takes *.com
    wanted = None
    if shape.hosts is not None:
        wanted = tuple(host for name in shape.hosts if (host := parse_host(name)) is not None)
    return _Candidate(pair, frozenset(exact), frozenset(parents), wanted)


def _flaws(candidate: _Candidate, hosts: tuple[str, ...], document: Document, way: tuple[Step, ...]) -> Iterator[Fault]:
    """What `hosts:` says and the certificate or the listener does not."""
    for at, host in enumerate(candidate.hosts or ()):
        if host not in hosts:
            yield document.fault((*way, "hosts", at), "unknown-host", *unknown_host(host))
        elif candidate.rank(host) is None:
            message = f"the certificate is not for {host}, but for {_names(candidate)}"
            yield document.fault((*way, "hosts", at), "certificate-names", message, "give one that names the host")


def _names(candidate: _Candidate) -> str:
    names = [*sorted(candidate.exact), *(f"*.{parent}" for parent in sorted(candidate.parents))]
    if not names:
        return "no DNS name or address (the common name is not read)"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _by_host(candidates: list[_Candidate], hosts: tuple[str, ...]) -> tuple[tuple[Shown, ...], tuple[str, ...]]:
    """(what is shown for which hosts, the first also for none; hosts without a certificate that names them)."""
    groups: dict[tuple[int, ...], list[str]] = {}
    uncovered = []
    for host in hosts:
        ranked = [(rank, at) for at, each in enumerate(candidates) if (rank := each.rank(host)) is not None]
        if ranked:
            groups.setdefault(tuple(at for _, at in sorted(ranked)), []).append(host)
        else:
            uncovered.append(host)
    first = next((group for group in groups if group[0] == 0), (0,))
    groups = {first: [*groups.pop(first, ()), *uncovered], **groups}
    shown = (Shown(tuple(members), tuple(candidates[at].pair for at in group)) for group, members in groups.items())
    return tuple(shown), tuple(uncovered)


def identity_facts(identity: Identity, document: Document) -> Iterator[CertificateFacts]:
    """Of what upstreams see, and of the anchors."""
    for name, key, pem in (("gateway", "certificate", identity.chain), ("bundle", "bundle", identity.bundle)):
        if pem:
            certificates = x509.load_pem_x509_certificates(pem)
            first = (
                certificates[0] if name == "gateway" else min(certificates, key=lambda each: each.not_valid_after_utc)
            )
            place = (document.file, *document.place(("identity", key))) if identity.outside else None
            yield _facts(name, first, place)


def _facts(
    name: str, leaf: x509.Certificate, place: tuple[str, int, int] | None = None, foreign_names: str = ""
) -> CertificateFacts:
    return CertificateFacts(
        name=name,
        not_before_s=int(leaf.not_valid_before_utc.timestamp()),
        not_after_s=int(leaf.not_valid_after_utc.timestamp()),
        sha256=hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest(),
        foreign_names=foreign_names,
        place=place,
    )


def finding(facts: CertificateFacts, now_s: float) -> Fault | None:
    """Why no client would accept a certificate that edge.yaml gives; None when it may, or is renewed by us.

    Not a fault of the configuration: a gateway that shows it already starts again and takes other changes. `edge check` and
    the reload that brings such a certificate refuse it.
    """
    if facts.place is None:
        return None
    if now_s >= facts.not_after_s:
        return Fault(*facts.place, "certificate-expired", f"{facts.name}: it has ended", "give a renewed one")
    if now_s < facts.not_before_s:
        message = f"{facts.name}: it does not count yet"
        return Fault(*facts.place, "certificate-not-yet-valid", message, "check the clock")
    if facts.foreign_names:
        message = f"{facts.name}: it is for none of the listener's hosts, but for {facts.foreign_names}"
        return Fault(*facts.place, "certificate-names", message, "give one that names a host")
    return None
