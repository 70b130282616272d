"""The gateway's own certificates: `state/identity/gateway/` (who it is to upstreams) and `state/identity/public/` (the
public listener's). Issued when missing, renewed at two thirds of their life, or when what they must name has changed.

Called at start and hourly. When nothing is due nothing is unlocked: the authority's passphrase is needed about every
sixteen hours, for some milliseconds. Intermediates are renewed on the way when the root's passphrase can be found without
asking anybody, and reported as a warning when it cannot.

A gateway without a CA has joined another one's (`io_material`): nothing is issued there, only judged. Past two thirds of
their life its certificates are a warning that says how to renew them, after their end a reason not to start.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pki import io_output
from pki.errors import AuthorityLocked, IssueRefused
from pki.io_authority import Authority, Issued
from pki.io_files import private_directory
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.io_output import Held
from pki.issue import (
    GATEWAY_NAME,
    LEAF_LIFE,
    SIGNER_ROLES,
    UPSTREAM_ROLES,
    IssueRequest,
    IssuerRole,
    NameSpace,
    SignerRole,
    name_space,
    parse_ip,
    split_hosts,
)
from pki.spiffe import SpiffeId


@dataclass(frozen=True, slots=True)
class Renewal:
    """What `ensure_gateway_identities` did."""

    renewed: tuple[str, ...]
    """`gateway`, `public`, or both; the configuration must be reloaded when it is not empty."""
    warnings: tuple[str, ...]


def ensure_gateway_identities(
    state: Path,
    *,
    trust_domain: str,
    hosts: Sequence[str],
    now: datetime,
    gateway_name: str = GATEWAY_NAME,
    passphrases: Passphrases | None = None,
) -> Renewal:
    """Issue or renew what is due. `hosts` empty: the public listener has a certificate of its own, leave it alone.

    Raises:
        AuthorityLocked: something is due and the authority is missing, locked or in use.
        IssueRefused: the authority belongs to another trust domain, or a host is not one it can certify.
        UnsafeFile: a directory or key under `state` is open to others.
        NotRecorded, SelfCheckFailed: see `Authority.issue`.
    """
    identity = state / "identity"
    private_directory(state)
    private_directory(identity)
    joined = None if os.path.lexists(state / "ca") else io_output.read(identity / "gateway")
    if joined is not None and str(SpiffeId.of(trust_domain, "gw", gateway_name)) not in joined.names:
        return Renewal((), _joined_warnings(identity, joined, trust_domain, hosts, now))
    due = _due(identity, trust_domain, hosts, now, gateway_name)
    if not due:
        return Renewal((), ())
    found = passphrases or Passphrases(state / "ca", environ=os.environ)
    with Authority.open(state / "ca", found, now=now) as authority:
        return renew_own(authority, found, trust_domain=trust_domain, hosts=hosts, now=now, gateway_name=gateway_name)


def renew_own(
    authority: Authority,
    passphrases: Passphrases,
    *,
    trust_domain: str,
    hosts: Sequence[str],
    now: datetime,
    gateway_name: str = GATEWAY_NAME,
    force: bool = False,
) -> Renewal:
    """The same, where the authority is open already. `force`: also what is still fresh.

    Raises: as `ensure_gateway_identities`.
    """
    identity = authority.directory.parent / "identity"
    private_directory(identity)
    if authority.trust_domain != trust_domain:
        raise IssueRefused(
            "trust-domain", f"{authority.directory} belongs to {authority.trust_domain}, edge.yaml says {trust_domain}"
        )
    owned: dict[str, IssuerRole] = {"gateway": "gw", "public": "edge"} if hosts else {"gateway": "gw"}
    due = list(owned) if force else _due(identity, trust_domain, hosts, now, gateway_name)
    for name, role in owned.items():  # of an issuer that is on its way out: it may not be trusted for as long
        present = io_output.read(identity / name)
        if present is not None and present.issuer != authority.signers[role][0].subject and name not in due:
            due.append(name)
    renewed, warnings = _renew_intermediates(authority, passphrases, hosts if due else (), now)
    held = io_output.read(identity / "gateway")
    bundle = authority.bundle_pem(roles=UPSTREAM_ROLES)
    if "gateway" not in due and (renewed & set(UPSTREAM_ROLES) or held is None or held.bundle_pem != bundle):
        due.insert(0, "gateway")  # its bundle must name the new intermediate before a service shows it
    if "gateway" in due:
        _issue_gateway(authority, identity / "gateway", gateway_name, now)
    if "public" in due:
        _issue_public(authority, identity / "public", hosts, now)
    return Renewal(tuple(due), tuple(warnings))


def gateway_dns(name: str, space: NameSpace) -> tuple[str, ...]:
    """`<name>.internal` where the authority may certify it, else no DNS name."""
    wanted = (f"{name}.internal",)
    return wanted if space.refusal(wanted, ()) is None else ()


def _due(identity: Path, trust_domain: str, hosts: Sequence[str], now: datetime, gateway_name: str) -> list[str]:
    due = []
    gateway = io_output.read(identity / "gateway")
    own_id = str(SpiffeId.of(trust_domain, "gw", gateway_name))
    if gateway is None or own_id not in gateway.names or not gateway.is_fresh(now):
        due.append("gateway")
    if hosts:
        public = io_output.read(identity / "public")
        if public is None or public.names != host_names(hosts) or not public.is_fresh(now):
            due.append("public")
    return due


def _joined_warnings(
    identity: Path, gateway: Held, trust_domain: str, hosts: Sequence[str], now: datetime
) -> tuple[str, ...]:
    """What is to be said of a gateway that joined.

    Raises:
        AuthorityLocked: a certificate is missing or has ended, and nobody here can make another.
        IssueRefused: they are not those of a gateway of this trust domain, or do not name a host.
    """
    own_id = next((name for name in gateway.names if name.startswith(f"spiffe://{trust_domain}/gw/")), None)
    if own_id is None:
        raise IssueRefused("trust-domain", f"{identity / 'gateway'} holds no gateway of {trust_domain}")
    remedy = (
        f"on the machine of the CA: scripts/issue-cert.py {own_id.rpartition('/')[2]} --role gateway --if-needed; "
        "here: edge init DIR --join with what it wrote"
    )
    held = {"gateway": gateway}
    if hosts:
        public = io_output.read(identity / "public")
        missing = sorted(host_names(hosts) - (public.names if public is not None else frozenset()))
        if public is None:
            raise AuthorityLocked(f"{identity / 'public'}: no certificate for the public listener; {remedy}")
        if missing:
            raise IssueRefused(
                "hosts", f"the public listener's certificate does not name {', '.join(missing)}; {remedy}"
            )
        held["public"] = public
    for name, each in held.items():
        if now > each.not_after:
            raise AuthorityLocked(f"{identity / name}: ended at {each.not_after:%Y-%m-%dT%H:%M:%SZ}; {remedy}")
    return tuple(
        f"the {name} certificate ends at {each.not_after:%Y-%m-%dT%H:%M:%SZ}; {remedy}"
        for name, each in held.items()
        if not each.is_fresh(now)
    )


def host_names(hosts: Sequence[str]) -> frozenset[str]:
    """The hosts as a certificate's names are spelled."""
    return frozenset(str(parse_ip(host) or host) for host in hosts)


def _renew_intermediates(
    authority: Authority, passphrases: Passphrases, hosts: Sequence[str], now: datetime
) -> tuple[set[SignerRole], list[str]]:
    """New intermediates where the present ones grow old or, for `edge`, do not cover a host of the public listener."""
    renewed: set[SignerRole] = set()
    warnings = []
    wanted = name_space(hosts) if hosts else None
    for role in SIGNER_ROLES:
        space = wanted if role == "edge" else None
        uncovered = space is not None and authority.space("edge").refusal(space.dns, space.ips) is not None
        if not uncovered and not authority.intermediate_renewal_due(role, now):
            continue
        try:
            authority.renew_intermediate(role, passphrases, now, space=space if uncovered else None)
            renewed.add(role)
        except AuthorityLocked as error:
            what = "does not cover every host of the public listener" if uncovered else "nears its end"
            warning = f"the {role} certificate of the authority {what} and the root's key is locked: {error}"
            if uncovered:
                raise AuthorityLocked(f"{warning}; or give listeners.public.tls a certificate of your own") from error
            warnings.append(warning)
    return renewed, warnings


def _issue_gateway(authority: Authority, target: Path, name: str, now: datetime) -> None:
    key = make_ec("p256")
    dns = gateway_dns(name, authority.space("gw"))
    issued = authority.issue(IssueRequest("gw", name, key.public_key(), dns, requester="gateway"), now)
    bundle = authority.bundle_pem(roles=UPSTREAM_ROLES)
    root = authority.root_sha256
    io_output.write(target, issued, key_pem=private_pem(key), bundle_pem=bundle, root_sha256=root, replace=True)


def issue_public(
    authority: Authority, hosts: Sequence[str], now: datetime, *, name: str, requester: str, life: timedelta = LEAF_LIFE
) -> tuple[Issued, bytes]:
    """A certificate for a public listener that answers for `hosts`, and its key in PEM.

    Raises:
        IssueRefused, NotRecorded, SelfCheckFailed: see `Authority.issue`.
    """
    key = make_ec("p256")
    dns, ips = split_hosts(hosts)
    request = IssueRequest("edge", name, key.public_key(), dns, ips, life=life, requester=requester)
    return authority.issue(request, now), private_pem(key)


def _issue_public(authority: Authority, target: Path, hosts: Sequence[str], now: datetime) -> None:
    issued, key_pem = issue_public(authority, hosts, now, name="public", requester="gateway")
    root, bundle = authority.root_sha256, authority.bundle_pem()
    io_output.write(target, issued, key_pem=key_pem, bundle_pem=bundle, root_sha256=root, replace=True)
