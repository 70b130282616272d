"""`scripts/issue-cert.py SERVICE`: one certificate for a service, gateway or operator, from the bundled CA.

Progress on stderr in five short steps, the result on stdout. Exit codes: 0 issued (or still fresh with --if-needed),
2 usage, 3 refused by policy, 4 the authority is locked, unsafe or missing, 5 would overwrite, 6 bad signing request,
7 could not be recorded (nothing was handed out), 8 the self-check failed (revoked), 70 a bug.

A gateway gets two: its identity, and beside it the certificate of its public listener, for the hosts of edge.yaml here
(`pki.io_material`); `edge init DIR --join` takes both.

argparse, because the usage and the exit codes are those of a script of its own, not of `edge`.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from cryptography.hazmat.primitives.asymmetric import ec

from edge.cli.locate import locate
from edge.config import io_load, issuing
from edge.config.issuing import IssuingPolicy
from edge.errors import ConfigError, UnsafeState
from pki import csr, io_material, io_output
from pki.errors import (
    AuthorityLocked,
    CsrRejected,
    IssueRefused,
    NotRecorded,
    PkiError,
    SelfCheckFailed,
    SpiffeIdError,
    UnsafeFile,
    WouldOverwrite,
)
from pki.io_authority import Authority, Issued
from pki.io_files import check_target, private_directory
from pki.io_identity import GATEWAY_NAME, UPSTREAM_ROLES, host_names, issue_public
from pki.io_keys import CURVES, Passphrases, make_ec, private_pem
from pki.issue import IssueRequest, check_life
from pki.spiffe import Role, SpiffeId

_ROLES: dict[str, Role] = {"service": "svc", "gateway": "gw", "operator": "op"}
_LIFE = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXITS: tuple[tuple[type[Exception], int], ...] = (
    (IssueRefused, 3),
    (SpiffeIdError, 3),
    (WouldOverwrite, 5),
    (CsrRejected, 6),
    (NotRecorded, 7),
    (SelfCheckFailed, 8),
    (AuthorityLocked, 4),
    (UnsafeFile, 4),
    (UnsafeState, 4),
    (ConfigError, 4),
    (PkiError, 70),
    (OSError, 4),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """The authority, how it is opened, and whether what stands in the target gives way."""

    ca: Path
    passphrases: Passphrases
    replace: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for, after the policy agreed."""

    role: Role
    spiffe_id: SpiffeId
    dns: tuple[str, ...]
    hosts: tuple[str, ...]
    """What a gateway's public listener answers for; its certificate is made too."""
    target: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; → exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except typer.Exit as left:  # `locate` has said what is missing
        return left.exit_code
    except Exception as error:  # the end of this program's line: every outcome has its exit code
        for kind, code in _EXITS:
            if isinstance(error, kind):
                print(f"issue-cert: {error}", file=sys.stderr)
                return code
        print(f"issue-cert: internal error ({type(error).__name__}); nothing was handed out", file=sys.stderr)
        if arguments.verbose:
            raise
        return 70


def _run(arguments: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    policy = issuing.read(io_load.load(locate(arguments.config), os.environ))
    if policy.has_outside_identity:
        raise AuthorityLocked("edge.yaml has `identity:`, so certificates come from that authority, not from here")
    ca = policy.state / "ca"
    prompt = getpass.getpass if sys.stdin.isatty() else None
    passphrases = Passphrases(ca, arguments.passphrase_file, arguments.passphrase_fd, environ=os.environ, prompt=prompt)
    try:
        wanted = _check_policy(arguments, policy)
        key, key_pem = _key(arguments, wanted)
    except (IssueRefused, CsrRejected) as refused:
        _record_refusal(ca, passphrases, arguments, refused, now)
        raise
    routes = _routes(policy, wanted)
    _step(arguments, 1, "policy", f"{arguments.service} -> {wanted.spiffe_id}{routes}")
    if arguments.if_needed and _is_fresh(wanted, now):
        _result(arguments, wanted.target, None, "still fresh")
        return 0
    replace = arguments.force or arguments.if_needed
    if not arguments.dry_run:
        _make_parents(policy.state, wanted.target)
        try:
            check_target(wanted.target, replace=replace)
        except WouldOverwrite as error:
            raise WouldOverwrite(f"{error}; --if-needed renews it when it is due, --force now") from error
    curve = "P-384" if key.curve.name == "secp384r1" else "P-256"
    _step(arguments, 2, "key", f"{curve}, {'proven by the signing request' if key_pem is None else 'written 0600'}")
    if arguments.dry_run:
        _result(arguments, wanted.target, None, "dry run: nothing was signed")
        return 0
    issued, root = _issue(arguments, wanted, key, key_pem, _Place(ca, passphrases, replace), now)
    if wanted.hosts and not arguments.quiet:
        print(f"      public    {', '.join(wanted.hosts)}", file=sys.stderr)
    if arguments.verbose:
        print(f"      root      sha256:{root}", file=sys.stderr)
    _result(arguments, wanted.target, (issued, root), "issued")
    return 0


def _issue(
    arguments: argparse.Namespace,
    wanted: _Wanted,
    key: ec.EllipticCurvePublicKey,
    key_pem: bytes | None,
    place: _Place,
    now: datetime,
) -> tuple[Issued, str]:
    """Sign and write; → what was issued and the root's fingerprint."""
    name, life = wanted.spiffe_id.name, arguments.ttl
    request = IssueRequest(wanted.role, name, key, wanted.dns, life=life, requester="issue-cert")
    numbers = {"recorded": 3, "signed": 4, "verified": 5}
    with Authority.open(place.ca, place.passphrases, now=now) as authority:
        more: io_material.Files = {}
        if wanted.hosts:  # first, because a host outside the `edge` intermediate must stop both
            public = issue_public(
                authority, wanted.hosts, now, name=f"{name}-public", requester="issue-cert", life=life
            )
            more = io_material.public_files(*public)
        issued = authority.issue(request, now, lambda step, text: _step(arguments, numbers[step], step, text))
        bundle = authority.bundle_pem(roles=UPSTREAM_ROLES if wanted.role == "gw" else ())
        root = authority.root_sha256
        io_output.write(
            wanted.target,
            issued,
            key_pem=key_pem,
            bundle_pem=bundle,
            root_sha256=root,
            replace=place.replace,
            more=more,
        )
    return issued, root


def _check_policy(arguments: argparse.Namespace, policy: IssuingPolicy) -> _Wanted:
    role = _ROLES[arguments.role]
    name = arguments.service
    try:
        spiffe_id = SpiffeId.of(policy.trust_domain, role, name)
    except SpiffeIdError as error:
        raise IssueRefused("service-name", str(error)) from error
    check_life(arguments.ttl)
    dns = tuple(dict.fromkeys(arguments.dns or ()))
    for each in dns:
        if not policy.allows_dns(each):
            suffixes = ", ".join(f".{suffix}" for suffix in policy.dns_suffixes)
            raise IssueRefused("name-space", f"{each} is outside the allowed suffixes: {suffixes}")
    if role == "svc":
        grant = policy.grants.get(name)
        if grant is None:
            raise IssueRefused("unknown-service", _lines_to_add(policy.services_file, name))
        beyond = [each for each in dns if each not in grant.dns]
        if beyond:
            have = ", ".join(grant.dns)
            raise IssueRefused(
                "dns-not-granted", f"{', '.join(beyond)}: {policy.services_file} grants {name} only {have}"
            )
        dns = dns or grant.dns
    hosts: tuple[str, ...] = ()
    if role == "gw":
        if name == GATEWAY_NAME:
            raise IssueRefused(
                "gateway-name", f"{name} is the gateway that holds the CA; give the other one its own name"
            )
        own_name = f"{name}.internal"
        dns = dns or ((own_name,) if policy.allows_dns(own_name) else ())
        hosts = () if arguments.csr else policy.public_hosts
    target = arguments.out or policy.state / "issued" / (name if role == "svc" else f"{arguments.role}-{name}")
    return _Wanted(role, spiffe_id, dns, hosts, Path(os.path.abspath(target)))


def _lines_to_add(file: str, name: str) -> str:
    return (
        f"{name} is not in {file}; to grant it, have these lines there:\n"
        f"services:\n"
        f"  {name}:\n"
        f"    dns: [{name}.internal]\n"
        f'    may_serve: ["/{name}/**"]'
    )


def _key(arguments: argparse.Namespace, wanted: _Wanted) -> tuple[ec.EllipticCurvePublicKey, bytes | None]:
    if arguments.csr is None:
        private = make_ec(arguments.key_type or "p256")
        return private.public_key(), private_pem(private)
    try:
        pem = arguments.csr.read_bytes()
    except OSError as error:
        raise CsrRejected("csr-malformed", f"{arguments.csr}: {error.strerror}") from error
    return csr.public_key(pem, names=[str(wanted.spiffe_id), wanted.spiffe_id.name, *wanted.dns]), None


def _record_refusal(
    ca: Path,
    passphrases: Passphrases,
    arguments: argparse.Namespace,
    refused: IssueRefused | CsrRejected,
    now: datetime,
) -> None:
    """Leave it in the authority's log; when the authority cannot be opened the refusal stands all the same."""
    try:
        with Authority.open(ca, passphrases, now=now) as authority:
            rule = IssueRefused(refused.rule, refused.detail.partition("\n")[0])
            authority.refuse(_ROLES[arguments.role], arguments.service, rule, now, requester="issue-cert")
    except PkiError as error:
        print(f"issue-cert: the refusal could not be recorded: {error}", file=sys.stderr)


def _is_fresh(wanted: _Wanted, now: datetime) -> bool:
    held = io_output.read(wanted.target)
    if held is None or held.names != {str(wanted.spiffe_id), *wanted.dns} or not held.is_fresh(now):
        return False
    public = io_output.read(wanted.target, io_material.PUBLIC) if wanted.hosts else None
    return not wanted.hosts or (
        public is not None and public.names == host_names(wanted.hosts) and public.is_fresh(now)
    )


def _routes(policy: IssuingPolicy, wanted: _Wanted) -> str:
    if wanted.role != "svc":
        return ""
    served = policy.grants[wanted.spiffe_id.name].may_serve
    return f"  (routes: {', '.join(pattern.text for pattern in served)})"


def _make_parents(state: Path, target: Path) -> None:
    """`state/issued` is made here; any other place must be there already."""
    if target.parent == Path(os.path.abspath(state)) / "issued":
        private_directory(target.parent)


def _step(arguments: argparse.Namespace, number: int, name: str, text: str) -> None:
    if not arguments.quiet:
        print(f"[{number}/5] {name:<9} {text}", file=sys.stderr)


def _result(arguments: argparse.Namespace, target: Path, issued: tuple[Issued, str] | None, outcome: str) -> None:
    if arguments.json:
        known = io_output.facts(*issued) if issued else {}
        print(json.dumps({"outcome": outcome, "directory": str(target), **known}))
    elif issued:
        print(f"{target}/{{{','.join(sorted(os.listdir(target)))}}}")
    else:
        print(f"{target}: {outcome}")


def _life(text: str) -> timedelta:
    found = _LIFE.match(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 24h, 90m or 3d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="issue-cert.py", description="Issue a certificate from the bundled CA.")
    add = parser.add_argument
    add("service", metavar="SERVICE", help="name in services.yaml; with --role the gateway's or operator's name")
    add("--dns", action="append", metavar="NAME", help="DNS name, repeatable; default: all that the grant names")
    add("--role", choices=list(_ROLES), default="service")
    add("--ttl", type=_life, default=timedelta(hours=24), metavar="24h", help="life, 5m to 7d")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--csr", type=Path, metavar="FILE", help="certify the key of this PEM request instead")
    source.add_argument("--key-type", choices=list(CURVES), help="default: p256")
    add("--out", type=Path, metavar="DIR", help="default: state/issued/SERVICE")
    add("-c", "--config", type=Path, metavar="FILE", help="edge.yaml; default: $EDGE_CONFIG, ./edge.yaml")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--passphrase-file", type=Path, metavar="FILE")
    secret.add_argument("--passphrase-fd", type=int, metavar="N")
    add("--if-needed", action="store_true", help="do nothing while the present one is fresh, else renew it")
    add("--force", action="store_true", help="replace what is there")
    add("--dry-run", action="store_true", help="stop before anything is signed")
    add("--json", action="store_true", help="one JSON object on stdout")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true")
    loud.add_argument("-v", "--verbose", action="store_true")
    return parser
