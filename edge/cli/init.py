"""`edge init DIR`: a whole configuration, its CA and the gateway's certificates, ready for `edge serve`.

It never overwrites, and never asks when there is nobody to answer: without a terminal and without a passphrase source the
passphrases are random and kept beside the keys (0600), and stderr says so.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge.cli import joining
from edge.cli.joining import Invitation, Wishes, check_choices, write_edge_yaml, write_policies
from edge.cli.templates import OUTSIDE_FILES, POLICY_FILES, Choices
from edge.errors import ConfigError, UnsafeState
from pki.errors import AuthorityLocked, IssueRefused, PkiError, UnsafeFile, WouldOverwrite
from pki.io_authority import create
from pki.io_files import private_directory, read_private
from pki.io_identity import ensure_gateway_identities
from pki.io_keys import Passphrases, make_passphrase
from pki.issue import name_space
from pki.spiffe import check_trust_domain


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made when missing.")],
    trust_domain: Annotated[str | None, typer.Option(help="Name of the trust domain. Default: mesh.internal")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Host of the public listener; repeatable.")] = None,
    bind: Annotated[str, typer.Option(help="Where the public listener listens.")] = "127.0.0.1:8443",
    store: Annotated[
        str | None, typer.Option(help="Store of the limits; ${NAME} is read from the environment. Default: embedded")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="State directory. Default: DIR/state")] = None,
    join: Annotated[
        str | None,
        typer.Option(
            metavar="MATERIAL|URL",
            help="Join another gateway's CA: the directory that issue-cert.py --role gateway wrote, or https://HOST:PORT "
            "of its enrol listener.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="EDGE_TOKEN", help="With a URL: from edge ca token NAME --role gateway."),
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="With a URL: SHA-256 of the root, as edge ca token says it.")
    ] = None,
    services: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With a URL: the services listener, if not on its host.")
    ] = None,
    ca: Annotated[
        bool, typer.Option("--ca/--no-ca", help="Make the bundled CA and the gateway's certificates.")
    ] = True,
    passphrase_file: Annotated[Path | None, typer.Option(help="Passphrase of the issuing keys (mode 0600).")] = None,
    root_passphrase_file: Annotated[Path | None, typer.Option(help="Passphrase of the root key (mode 0600).")] = None,
) -> None:
    """Write edge.yaml, policies, CA and gateway certificates into DIR. With --join: everything but the CA, and DIR may
    hold edge.yaml and policies already; run again with newer material, it renews the certificates and nothing else. With a
    URL and a one-time token the gateway obtains its certificates over the network, and renews them there by itself."""
    check_choices(bind, store)
    wishes = Wishes(trust_domain, tuple(host or ()), bind, store, state)
    try:
        if join is not None:
            if not ca or passphrase_file or root_passphrase_file:
                raise typer.BadParameter("a gateway that joins has no CA, so none of its options apply")
            source = _source(join, token, fingerprint, services)
            _join(directory, source, wishes)
        else:
            _make(directory, wishes, with_ca=ca, secrets=(passphrase_file, root_passphrase_file))
    except (UnsafeFile, AuthorityLocked, UnsafeState) as error:
        _say(str(error))
        raise typer.Exit(4) from error
    except (PkiError, ConfigError, OSError) as error:
        _say(str(error))
        raise typer.Exit(1) from error


def _join(directory: Path, source: Path | Invitation, wishes: Wishes) -> None:
    try:
        joining.run(directory, source, wishes, datetime.now(UTC), _say)
    except IssueRefused as error:  # by the other gateway's authority
        _say(str(error))
        raise typer.Exit(3) from error


def _source(join: str, token: str | None, fingerprint: str | None, services: str | None) -> Path | Invitation:
    """Raises: typer.BadParameter"""
    if not join.startswith("https://"):
        if token or fingerprint or services:
            raise typer.BadParameter(
                "--token, --fingerprint and --services go with https://HOST:PORT", param_hint="--join"
            )
        return Path(join)
    if not token or not fingerprint:
        raise typer.BadParameter(
            "a URL needs --token (or $EDGE_TOKEN) and --fingerprint; edge ca token NAME --role gateway says both",
            param_hint="--join",
        )
    return Invitation(join, token, fingerprint, services)


def _make(directory: Path, wishes: Wishes, *, with_ca: bool, secrets: tuple[Path | None, Path | None]) -> None:
    """A gateway of its own."""
    trust_domain = wishes.trust_domain or "mesh.internal"
    choices = Choices(
        trust_domain=trust_domain,
        hosts=wishes.hosts or ("localhost", "api.example.com"),
        origin=f"{trust_domain}/log",
        has_outside_identity=not with_ca,
        bind=wishes.bind,
        state=wishes.state_text,
        store=wishes.store or "embedded",
    )
    state = wishes.state or directory / "state"
    _check_free(directory, state, with_ca=with_ca)
    check_trust_domain(trust_domain)
    name_space(choices.hosts)
    passphrases = _passphrases(state / "ca", *secrets) if with_ca else {}
    write_edge_yaml(directory, choices)
    write_policies(directory)
    private_directory(state)
    if with_ca:
        _make_authority(state, trust_domain, choices.hosts, passphrases)
    else:
        _say(f"no CA was made; put the outside authority's files in place: {', '.join(OUTSIDE_FILES)}")
    _say(f"wrote {directory}; next: edge serve -c {directory / 'edge.yaml'}")


def _check_free(directory: Path, state: Path, *, with_ca: bool) -> None:
    wanted = [directory / "edge.yaml", *(directory / "policies" / name for name in POLICY_FILES)]
    for path in [*wanted, *([state / "ca", state / "identity"] if with_ca else [])]:
        if os.path.lexists(path):
            raise WouldOverwrite(f"{path} exists; nothing was written. Choose another directory")


def _passphrases(ca: Path, issuing: Path | None, root: Path | None) -> dict[str, bytes | None]:
    """Name of the key → its passphrase, None where a random one is to be made. Asked before anything is written."""
    credentials = Passphrases(ca, environ=os.environ)
    return {
        name: _from_file(file) if file is not None else _from_elsewhere(credentials, name)
        for name, file in (("root", root), ("issuing", issuing))
    }


def _make_authority(state: Path, trust_domain: str, hosts: Sequence[str], chosen: dict[str, bytes | None]) -> None:
    unattended = [name for name, passphrase in chosen.items() if passphrase is None]
    passphrases = {name: passphrase or make_passphrase() for name, passphrase in chosen.items()}
    now = datetime.now(UTC)
    create(
        state / "ca",
        trust_domain=trust_domain,
        dns_suffixes=(".internal", trust_domain),
        hosts=hosts,
        passphrases=passphrases,
        now=now,
        unattended=unattended,
    )
    if unattended:
        places = " and ".join(str(state / "ca" / f"{name}.passphrase") for name in unattended)
        _say(f"no passphrase was given: random ones are in {places} (0600); move the root's to a safe place")
    known = Passphrases(state / "ca", given=passphrases)
    ensure_gateway_identities(state, trust_domain=trust_domain, hosts=hosts, now=now, passphrases=known)


def _from_file(path: Path) -> bytes:
    try:
        passphrase = read_private(path, limit=1024).rstrip(b"\r\n")
    except FileNotFoundError as error:
        raise AuthorityLocked(f"{path}: no such passphrase file") from error
    if not passphrase:
        raise AuthorityLocked(f"{path}: the passphrase is empty")
    return passphrase


def _from_elsewhere(credentials: Passphrases, name: str) -> bytes | None:
    """From the service manager or a person; None when there is neither, or the person leaves it to us."""
    if credentials.is_placed(name):
        return credentials.find(name)
    if not sys.stdin.isatty():
        return None
    first = getpass.getpass(f"New passphrase of the {name} key (empty: a random one): ")
    if first and getpass.getpass("Again: ") != first:
        raise AuthorityLocked("the two passphrases differ; nothing was made")
    return first.encode() or None


def _say(text: str) -> None:
    typer.echo(f"edge init: {text}", err=True)
