"""`edge ca`: tokens, revocation and the state of the bundled CA, with or without a running gateway.

Exit codes: 0 done, 2 usage, 3 refused by policy, 4 the authority is locked, unsafe or missing, 7 could not be recorded.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.cli.authority import Asks, alone, reach
from edge.cli.duration import parse_duration
from edge.cli.issuing import Wish, judge
from edge.cli.locate import locate
from edge.config import io_load, issuing
from edge.config.issuing import IssuingPolicy
from edge.errors import ConfigError, UnsafeState
from pki import desk, io_rotate, io_status
from pki.errors import AuthorityLocked, CsrRejected, IssueRefused, NotRecorded, PkiError, SpiffeIdError
from pki.io_heartbeat import Heartbeats
from pki.io_keys import Passphrases
from pki.io_status import STATUS, Publisher
from pki.rotation import Kind

app = typer.Typer(no_args_is_help=True, help="The bundled CA: tokens, revocation, state.")


class Role(StrEnum):
    """As commands spell them."""

    service = "service"
    gateway = "gateway"
    operator = "operator"


class Revocable(StrEnum):
    """What a revocation may name."""

    service = "service"
    gateway = "gateway"
    operator = "operator"
    intermediate = "intermediate"


_Config = Annotated[Path | None, typer.Option("-c", "--config", help="edge.yaml; else $EDGE_CONFIG, else ./edge.yaml.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
_Role = Annotated[Role, typer.Option(help="What SERVICE names.")]
_Secret = Annotated[Path | None, typer.Option(help="Passphrase of the issuing keys (mode 0600).")]


@dataclass(frozen=True, slots=True)
class Place:
    """The configuration, and how its authority is opened."""

    policy: IssuingPolicy
    passphrases: Passphrases


def place(config: Path | None, passphrase_file: Path | None) -> Place:
    """Raises: ConfigError, AuthorityLocked."""
    policy = issuing.read(io_load.load(locate(config), os.environ))
    if policy.has_outside_identity:
        raise AuthorityLocked("edge.yaml has `identity:`, so certificates come from that authority, not from here")
    prompt = getpass.getpass if sys.stdin.isatty() else None
    return Place(policy, Passphrases(policy.state / "ca", passphrase_file, environ=os.environ, prompt=prompt))


@contextmanager
def ending() -> Iterator[None]:
    """Every outcome has its exit code."""
    try:
        yield
    except (PkiError, ConfigError, UnsafeState, OSError) as error:
        print(f"edge ca: {error}", file=sys.stderr)
        refused = isinstance(error, (IssueRefused, SpiffeIdError))
        raise typer.Exit(3 if refused else 7 if isinstance(error, NotRecorded) else 4) from error


@contextmanager
def _desk(config: Path | None, passphrase_file: Path | None) -> Iterator[tuple[IssuingPolicy, Asks]]:
    with ending():
        here = place(config, passphrase_file)
        services = {name: grant.dns for name, grant in here.policy.grants.items()}
        with reach(here.policy.state, here.passphrases, services) as asks:
            yield here.policy, asks


@app.command()
def token(
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    role: _Role = Role.service,
    ttl: Annotated[str, typer.Option(metavar="10m", help="Life of the token.")] = "10m",
    life: Annotated[str, typer.Option(metavar="24h", help="Life of the certificate.")] = "24h",
    dns: Annotated[list[str] | None, typer.Option(help="DNS name; default: all that the grant names.")] = None,
    config: _Config = None,
    passphrase_file: _Secret = None,
    as_json: _Json = False,
) -> None:
    """A one-time token: whoever shows it obtains one certificate for SERVICE, by EST (RFC 7030) simpleenroll."""
    wish = Wish(role.value, service, tuple(dns or ()), _duration(life, "--life"))
    token_life = _duration(ttl, "--ttl")
    with _desk(config, passphrase_file) as (policy, asks):
        show_token(make_token(policy, asks, wish, token_life), as_json=as_json)


def _duration(text: str, option: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def make_token(policy: IssuingPolicy, asks: Asks, wish: Wish, ttl: timedelta) -> desk.TokenMade:
    """Raises: IssueRefused (recorded), PkiError."""
    try:
        wanted = judge(wish, policy)
    except IssueRefused as refused:
        asks(refusal(wish, refused))
        raise
    life_s, ttl_s = int(wish.life.total_seconds()), int(ttl.total_seconds())
    request = desk.MakeToken(wanted.role, wish.name, wanted.dns, life_s, ttl_s, "edge ca")
    made = asks(request)
    assert isinstance(made, desk.TokenMade)
    return made


def refusal(wish: Wish, refused: IssueRefused | CsrRejected) -> desk.Refuse:
    """What the record is told; the remedy in further lines is for the person only."""
    return desk.Refuse(wish.spiffe_role, wish.name, refused.rule, refused.detail.partition("\n")[0], "edge ca")


def show_token(made: desk.TokenMade, *, as_json: bool) -> None:
    """The token alone on stdout, so that it can be piped; what belongs to it on stderr."""
    end = f"{made.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    if as_json:
        print(json.dumps({"token": made.text, "expires": end, "root_sha256": made.root_sha256}))
    else:
        print(made.text)
        print(f"good once, until {end}; pin the root: sha256:{made.root_sha256}", file=sys.stderr)


@app.command()
def revoke(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="With --role intermediate: svc, gw, op or edge.")],
    role: Annotated[Revocable, typer.Option(help="What SERVICE names.")] = Revocable.service,
    serial: Annotated[
        str | None, typer.Option(help="Only this certificate (hex). Default: all that have not ended.")
    ] = None,
    reason: Annotated[str, typer.Option(help="As RFC 5280 names it.")] = "cessationOfOperation",
    config: _Config = None,
    passphrase_file: _Secret = None,
    as_json: _Json = False,
) -> None:
    """Revoke what SERVICE holds, and its unused tokens; gateways cut its connections within a second. Intermediates: those
    that a rotation has taken out of use, with every certificate below them; needs the root's passphrase for its list."""
    with _desk(config, passphrase_file) as (_, asks):
        issuer = None if role is Revocable.intermediate else Wish(role.value, service).spiffe_role
        done = asks(desk.Revoke(issuer or "root", service, serial, reason, "edge ca"))
        assert isinstance(done, desk.Revoked)
        if as_json:
            print(json.dumps({"revoked": list(done.serials), "number": done.set_number}))
        elif done.serials:
            print(f"revoked {', '.join(done.serials)}; set {done.set_number}")
        else:
            print(f"{service} holds no certificate that has not ended; its unused tokens are void")
    if role is Revocable.intermediate:
        _publish_root_list(config, passphrase_file)


def _publish_root_list(config: Path | None, passphrase_file: Path | None) -> None:
    """Tell those who read lists (RFC 5280) which intermediates are revoked; gateways know it from the set by now."""
    with ending():
        here = place(config, passphrase_file)
        known = here.passphrases.having("root")
        with alone(here.policy.state, known) as authority:
            io_status.publish_root_list(authority, known, here.policy.state / STATUS, datetime.now(UTC))


@app.command()
def status(config: _Config = None, passphrase_file: _Secret = None, as_json: _Json = False) -> None:
    """Every certificate that has not ended: whose, until when, by which issuer, revoked or not, and who asked for it."""
    with _desk(config, passphrase_file) as (_, asks):
        shown = asks(desk.Show())
        assert isinstance(shown, desk.Shown)
        if as_json:
            print(msgspec.json.format(msgspec.json.encode(shown)).decode())
            return
        for line in status_lines(shown, datetime.now(UTC)):
            print(line)


def status_lines(shown: desk.Shown, now: datetime) -> Iterator[str]:
    """The state as people read it."""
    yield f"{shown.trust_domain}  root sha256:{shown.root_sha256}"
    for name, end in shown.roots:
        yield f"  {name:<24} until {end:%Y-%m-%d}"
    for name, end, signs in shown.signers:
        yield f"  {name:<24} until {end:%Y-%m-%d}  {'signs' if signs else 'trusted'}"
    yield f"revocation set {shown.set_number} with {shown.revoked} entries; bundle {shown.bundle_sequence}"
    if shown.rotation:
        yield shown.rotation
    for each in shown.certificates:
        left = each.not_after - now
        state = (
            f"revoked ({each.reason})" if each.state == "revoked" else "current" if each.is_current else "superseded"
        )
        yield (
            f"  {each.role + '/' + each.name:<24} {each.serial:>40} {left.total_seconds() / 3600:6.1f} h  "
            f"{each.issuer:<22} {state}, by {each.requester}"
        )
    if shown.more:
        yield f"  and {shown.more} more"


class What(StrEnum):
    """What can be replaced."""

    intermediate = "intermediate"
    root = "root"
    gateway = "gateway"


_KINDS: dict[What, Kind] = {What.intermediate: "intermediate", What.root: "root"}


@app.command()
def rotate(
    what: Annotated[What, typer.Argument(metavar="intermediate|root|gateway")],
    show: Annotated[bool, typer.Option("--status", help="Only say how far it is.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go one stage on without waiting for the evidence.")] = False,
    config: _Config = None,
    passphrase_file: _Secret = None,
    as_json: _Json = False,
) -> None:
    """Replace the intermediates, the root and them, or the gateway's own certificates; nothing is restarted or dropped.

    A gateway takes it from stage to stage by itself; without one, give the command again. Exit code 1 while it waits."""
    with ending():
        here = place(config, passphrase_file)
        services = {name: grant.dns for name, grant in here.policy.grants.items()}
        with reach(here.policy.state, here.passphrases, services) as asks:
            under_way = _rotation(asks)
            if what is What.gateway and not show:
                asks(desk.RenewOwn(here.policy.trust_domain, here.policy.public_hosts, force=True))
            elif under_way and not show:
                asks(desk.Advance(force=force))
        if what is not What.gateway and not show and (not under_way or "give the command again" in under_way):
            # While nobody has the authority open nobody says what is revoked, and gateways wait ten seconds for it: not for
            # somebody who types a passphrase.
            known = here.passphrases.having("root")
            with alone(here.policy.state, known) as authority:
                publisher = Publisher(authority, here.policy.state / STATUS)
                publisher.publish(datetime.now(UTC))
                with Heartbeats(publisher):
                    publisher.beat_again(datetime.now(UTC))
                    io_rotate.begin(authority, publisher, known, _KINDS[what], datetime.now(UTC))
                    io_status.publish_root_list(authority, known, here.policy.state / STATUS, datetime.now(UTC))
                    publisher.beat_again(datetime.now(UTC))
        with reach(here.policy.state, here.passphrases, services) as asks:
            left = _rotation(asks)
    if as_json:
        print(json.dumps({"rotation": left, "done": not left}))
    else:
        print(left or "nothing under way" if show else left or "done")
    raise typer.Exit(1 if left else 0)


def _rotation(asks: Asks) -> str:
    shown = asks(desk.Show())
    assert isinstance(shown, desk.Shown)
    return shown.rotation


@app.command()
def bundle(
    config: _Config = None,
    pem: Annotated[bool, typer.Option("--pem", help="The roots and role intermediates in PEM instead.")] = False,
) -> None:
    """The SPIFFE bundle of the trust domain, as JSON with its sequence."""
    with ending():
        file = place(config, None).policy.state / STATUS / ("bundle.pem" if pem else "bundle.json")
        try:
            print(file.read_text(), end="")
        except FileNotFoundError as error:
            raise AuthorityLocked(f"{file}: nothing published yet; run: edge ca status") from error
