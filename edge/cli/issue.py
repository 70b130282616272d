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
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.cli.authority import Asks, reach
from edge.cli.ca import make_token, refusal, show_token
from edge.cli.duration import parse_duration
from edge.cli.freshness import Wanted, is_fresh
from edge.cli.issuing import ROLES, Wish, judge
from edge.cli.locate import locate
from edge.config import io_load, issuing
from edge.config.issuing import IssuingPolicy
from edge.errors import ConfigError, UnsafeState
from pki import csr, desk, io_material, io_output
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
from pki.io_enrol import TOKEN_TTL
from pki.io_files import check_target, private_directory
from pki.io_keys import CURVES, Passphrases, make_ec, private_pem
from pki.issue import IssuerRole, split_hosts

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


_REMEDIES: dict[type[Exception], str] = {
    NotRecorded: "; nothing was handed out. Make room on the disk, see that state/ca is whole and yours, and ask again",
    OSError: "; nothing was replaced. Make room on the disk and see that the place can be written, and ask again",
}


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
                print(f"issue-cert: {error}{_REMEDIES.get(kind, '')}", file=sys.stderr)
                return code
        print(f"issue-cert: internal error ({type(error).__name__}); nothing was handed out", file=sys.stderr)
        if arguments.verbose:
            raise
        return 70


def _run(arguments: argparse.Namespace) -> int:
    policy = issuing.read(io_load.load(locate(arguments.config), os.environ))
    if policy.has_outside_identity:
        raise AuthorityLocked("edge.yaml has `identity:`, so certificates come from that authority, not from here")
    ca = policy.state / "ca"
    prompt = getpass.getpass if sys.stdin.isatty() else None
    passphrases = Passphrases(ca, arguments.passphrase_file, arguments.passphrase_fd, environ=os.environ, prompt=prompt)
    services = {name: grant.dns for name, grant in policy.grants.items()}
    desk_of = partial(reach, policy.state, passphrases, services)
    target = _target(arguments, policy)
    wish = Wish(arguments.role, arguments.service, _dns(arguments, target), arguments.ttl)
    try:
        wanted = _wanted(arguments, policy, wish, target)
        key, key_pem = _key(arguments, wanted)
    except (IssueRefused, CsrRejected) as refused:
        _record_refusal(desk_of, wish, refused)
        raise
    _step(arguments, 1, "policy", f"{arguments.service} -> {wanted.spiffe_id}{_routes(policy, wanted)}")
    if arguments.token_only and not arguments.dry_run:
        with desk_of() as asks:
            show_token(make_token(policy, asks, wish, TOKEN_TTL), as_json=arguments.json)
        return 0
    if arguments.if_needed and is_fresh(policy.state, wanted, datetime.now(UTC)):
        _result(arguments, wanted.target, None, "still fresh")
        return 0
    replace = arguments.force or arguments.if_needed or arguments.renew
    if not arguments.dry_run:
        _make_parents(policy.state, wanted.target)
        try:
            check_target(wanted.target, replace=replace)
        except WouldOverwrite as error:
            if replace:
                raise
            raise WouldOverwrite(f"{error}; --if-needed renews it when it is due, --renew now") from error
    curve = "P-384" if key.curve.name == "secp384r1" else "P-256"
    _step(arguments, 2, "key", f"{curve}, {'proven by the signing request' if key_pem is None else 'written 0600'}")
    if arguments.dry_run:
        _result(arguments, wanted.target, None, "dry run: nothing was signed")
        return 0
    with desk_of() as asks:
        certified = _issue(arguments, wanted, key, key_pem, asks, replace=replace)
    if wanted.hosts and not arguments.quiet:
        print(f"      public    {', '.join(wanted.hosts)}", file=sys.stderr)
    if arguments.verbose:
        print(f"      root      sha256:{certified.root_sha256}", file=sys.stderr)
    _result(arguments, wanted.target, certified, "issued")
    return 0


def _issue(
    arguments: argparse.Namespace,
    wanted: Wanted,
    key: ec.EllipticCurvePublicKey,
    key_pem: bytes | None,
    asks: Asks,
    *,
    replace: bool,
) -> desk.Certified:
    """Have it signed, and write it."""
    more: io_material.Files = {}
    if wanted.hosts:  # first, because a host outside the `edge` intermediate must stop both
        private = make_ec("p256")
        dns, ips = split_hosts(wanted.hosts)
        public = _ask(asks, arguments, ("edge", f"{wanted.spiffe_id.name}-public"), private.public_key(), dns, ips)
        more = io_material.public_files(public.issued, private_pem(private))
    certified = _ask(asks, arguments, (wanted.role, wanted.spiffe_id.name), key, wanted.dns)
    issued = certified.issued
    _step(arguments, 3, "recorded", f"issuance #{issued.number}, log index {issued.intent_index}")
    end, renew = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (issued.not_after, issued.renew_after))
    _step(arguments, 4, "signed", f"serial {issued.serial_hex}, valid until {end} (renew after {renew})")
    _step(arguments, 5, "verified", f"chain, identity and key match; log index {issued.log_index}")
    io_output.write(
        wanted.target,
        issued,
        key_pem=key_pem,
        bundle_pem=certified.bundle_pem,
        root_sha256=certified.root_sha256,
        replace=replace,
        more=more,
    )
    return certified


def _ask(
    asks: Asks,
    arguments: argparse.Namespace,
    identity: tuple[IssuerRole, str],
    key: ec.EllipticCurvePublicKey,
    dns: tuple[str, ...],
    ips: tuple[str, ...] = (),
) -> desk.Certified:
    role, name = identity
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    life_s = int(arguments.ttl.total_seconds())
    certified = asks(desk.Issue(role, name, spki, dns, ips, life_s, "issue-cert"))
    assert isinstance(certified, desk.Certified)
    return certified


def _target(arguments: argparse.Namespace, policy: IssuingPolicy) -> Path:
    name = arguments.service
    usual = policy.state / "issued" / (name if arguments.role == "service" else f"{arguments.role}-{name}")
    return Path(os.path.abspath(arguments.out or usual))


def _dns(arguments: argparse.Namespace, target: Path) -> tuple[str, ...]:
    """The names asked for; a renewal keeps those of the present certificate unless it says others."""
    if arguments.dns or not arguments.renew:
        return tuple(arguments.dns or ())
    held = io_output.read(target)
    if held is None:
        raise AuthorityLocked(f"{target}: no whole certificate and key to renew; leave --renew out")
    return tuple(sorted(name for name in held.names if not name.startswith("spiffe://")))


def _wanted(arguments: argparse.Namespace, policy: IssuingPolicy, wish: Wish, target: Path) -> Wanted:
    allowed = judge(wish, policy)
    hosts = policy.public_hosts if allowed.role == "gw" and not arguments.csr else ()
    return Wanted(allowed.role, allowed.spiffe_id, allowed.dns, hosts, target)


def _key(arguments: argparse.Namespace, wanted: Wanted) -> tuple[ec.EllipticCurvePublicKey, bytes | None]:
    if arguments.csr is None:
        private = make_ec(arguments.key_type or "p256")
        return private.public_key(), private_pem(private)
    try:
        pem = arguments.csr.read_bytes()
    except OSError as error:
        raise CsrRejected("csr-malformed", f"{arguments.csr}: {error.strerror}") from error
    return csr.public_key(pem, names=[str(wanted.spiffe_id), wanted.spiffe_id.name, *wanted.dns]), None


def _record_refusal(
    desk_of: Callable[[], AbstractContextManager[Asks]], wish: Wish, refused: IssueRefused | CsrRejected
) -> None:
    """Leave it in the authority's log; when the authority cannot be reached the refusal stands all the same."""
    try:
        with desk_of() as asks:
            asks(refusal(wish, refused))
    except PkiError as error:
        print(f"issue-cert: the refusal could not be recorded: {error}", file=sys.stderr)


def _routes(policy: IssuingPolicy, wanted: Wanted) -> str:
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


def _result(arguments: argparse.Namespace, target: Path, certified: desk.Certified | None, outcome: str) -> None:
    if arguments.json:
        known = io_output.facts(certified.issued, certified.root_sha256) if certified else {}
        print(json.dumps({"outcome": outcome, "directory": str(target), **known}))
    elif certified:
        print(f"{target}/{{{','.join(sorted(os.listdir(target)))}}}")
    else:
        print(f"{target}: {outcome}")


def _life(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="issue-cert.py", description="Issue a certificate from the bundled CA.")
    add = parser.add_argument
    add("service", metavar="SERVICE", help="name in services.yaml; with --role the gateway's or operator's name")
    add("--dns", action="append", metavar="NAME", help="DNS name, repeatable; default: all that the grant names")
    add("--role", choices=list(ROLES), default="service")
    add("--ttl", type=_life, default=timedelta(hours=24), metavar="24h", help="life, 5m to 7d")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--csr", type=Path, metavar="FILE", help="certify the key of this PEM request instead")
    source.add_argument("--key-type", choices=list(CURVES), help="default: p256")
    add("--out", type=Path, metavar="DIR", help="default: state/issued/SERVICE")
    add("-c", "--config", type=Path, metavar="FILE", help="edge.yaml; default: $EDGE_CONFIG, ./edge.yaml")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--passphrase-file", type=Path, metavar="FILE")
    secret.add_argument("--passphrase-fd", type=int, metavar="N")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--if-needed", action="store_true", help="do nothing while the present one is fresh, else renew it"
    )
    again.add_argument("--renew", action="store_true", help="replace the present one now, with its names")
    again.add_argument("--token-only", action="store_true", help="no certificate: a one-time token to enrol with (EST)")
    add("--force", action="store_true", help="replace what is there")
    add("--dry-run", action="store_true", help="stop before anything is signed")
    add("--json", action="store_true", help="one JSON object on stdout")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true")
    loud.add_argument("-v", "--verbose", action="store_true")
    return parser
