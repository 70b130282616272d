"""What the supervisor knows of a configuration. It judges the files in a child (see `errand`) and never parses them itself.

The child sends JSON: the faults, or these few facts. The parsed Config does not come back; workers parse the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from edge.audit.record import AuditSettings
from edge.config.certificates import finding
from edge.config.parse import parse
from edge.config.settings import Config
from edge.config.sources import Sources, resolve
from edge.errors import ConfigError, Fault
from edge.serve.errand import Failure


class Outline(msgspec.Struct, frozen=True):
    """The facts of a valid configuration that the supervisor acts on."""

    bundle_hash: str
    trust_domain: str
    state: str
    listeners: tuple[tuple[str, str, int], ...]
    """(name, host, port) of those that are opened, in the order of the file."""
    workers: int
    store: str
    """`EMBEDDED`, or a fingerprint of the server's settings: it is only compared."""
    audit: AuditSettings
    hosts: tuple[str, ...]
    issues_gateway: bool
    """The gateway's own identity comes from the bundled CA."""
    issues_public: bool
    """So does the certificate of the public listener."""
    services: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, DNS names) of those that may have a certificate."""
    bundle_sha256: str = ""
    """Of whom the gateway trusts, hex."""
    authority: tuple[str, int] | None = None
    """Where another gateway holds the CA."""
    has_limits: bool = False
    certificates: tuple[tuple[str, int], ...] = ()
    """(name, end of life in seconds since the epoch); names as in `settings.CertificateFacts`."""
    shown: tuple[str, ...] = ()
    """SHA-256 of each."""
    findings: tuple[tuple[str, Fault], ...] = ()
    """(SHA-256, why no client would accept it) when they were judged."""
    warnings: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """An outline, or at least one fault."""

    outline: Outline | None = None
    faults: tuple[Fault, ...] = ()


EMBEDDED = "embedded"
_RESTART = "restart the gateway to change it, or put it back"


def judge(sources: Sources) -> bytes:
    """In a child: parse, and say what came of it."""
    try:
        verdict = Verdict(outline_of(parse(sources), sources))
    except ConfigError as exc:
        verdict = Verdict(faults=exc.faults)
    return msgspec.json.encode(verdict)


def read_verdict(result: bytes | Failure, file: str) -> Verdict:
    """What the child said; a child that could not speak is a fault of the files it read."""
    if isinstance(result, bytes):
        try:
            return msgspec.json.decode(result, type=Verdict)
        except msgspec.MsgspecError:
            result = Failure("no readable result")
    message = f"the files cannot be judged: the process that parses them ended by {result.cause}"
    return Verdict(faults=(Fault(file, 1, 1, "parser-died", message, "undo the last edit, then run `edge check`"),))


def worse_certificates(running: Outline, wanted: Outline) -> tuple[Fault, ...]:
    """A certificate that no client would accept does not replace one that may still be good. One that ended while it was
    shown stops no reload: other changes must get through."""
    return tuple(fault for sha256, fault in wanted.findings if sha256 not in running.shown)


def fixed_differences(running: Outline, wanted: Outline, file: str) -> tuple[Fault, ...]:
    """What a reload cannot change, because sockets, log and store are made once; one fault each."""
    faults = []
    for name in ("trust_domain", "state", "listeners", "workers", "store", "audit", "authority"):
        if getattr(running, name) != getattr(wanted, name):
            faults.append(Fault(file, 1, 1, "needs-restart", f"{name}: cannot change while the gateway runs", _RESTART))
    return tuple(faults)


def digest(sources: Sources) -> str:
    """Tells two readings apart, also by what the bundle hash leaves out: certificates, keys, variables. Hex SHA-256."""
    parts = [sources.bundle_hash, *sources.unknown]
    for files in (sources.files, sources.variables):
        parts += [f"{name}={hashlib.sha256(files[name].reveal()).hexdigest()}" for name in sorted(files)]
    parts += [f"{name}!{sources.unreadable[name]}" for name in sorted(sources.unreadable)]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def watched_files(sources: Sources) -> list[Path]:
    """Every file whose change may mean a new configuration; of the policies also those that do not exist yet."""
    policies = Path(resolve(sources.source, sources.policies_name))
    named = [Path(path) for path in (*sources.files, *sources.unreadable)]
    return [sources.source, *(policies / Path(file.name).name for file in sources.policies), policies / "*", *named]


def outline_of(config: Config, sources: Sources) -> Outline:
    """Pick the facts."""
    listeners = []
    for name in config.opened:
        listener = getattr(config.listeners, name)
        listeners.append((name, listener.bind[0], listener.bind[1]))
    store = EMBEDDED if config.store is None else _fingerprint(f"{config.store!r} {config.store.password!r}")
    # Read only when no certificate of its own is named.
    now_s = time.time()
    found = tuple((each.sha256, fault) for each in config.certificates if (fault := finding(each, now_s)) is not None)
    own_public = str(config.state / "identity" / "public" / "chain.pem")
    return Outline(
        bundle_hash=config.bundle_hash,
        trust_domain=config.trust_domain,
        state=str(config.state),
        listeners=tuple(listeners),
        workers=config.workers,
        store=store,
        audit=config.audit,
        hosts=config.listeners.public.hosts,
        issues_gateway=not config.identity.outside,
        issues_public=own_public in sources.files or own_public in sources.unreadable,
        services=tuple((grant.service, grant.dns) for grant in config.grants),
        bundle_sha256=hashlib.sha256(config.identity.bundle).hexdigest(),
        authority=config.authority,
        has_limits=bool(config.limits),
        certificates=tuple((each.name, each.not_after_s) for each in config.certificates),
        shown=tuple(each.sha256 for each in config.certificates),
        findings=found,
        warnings=(*config.warnings, *(str(fault) for _, fault in found)),
    )


def _fingerprint(text: str) -> str:
    """A password must not leave the process that parsed it."""
    return hashlib.sha256(text.encode()).hexdigest()
