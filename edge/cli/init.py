"""`edge init DIR`: a whole configuration, its CA and the gateway's certificates, ready for `edge serve`.

It never overwrites, and never asks when there is nobody to answer: without a terminal and without a passphrase source the
passphrases are random and kept beside the keys (0600), and stderr says so.
"""

from __future__ import annotations

import getpass
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import edge
from edge.cli.templates import OUTSIDE_FILES, POLICY_FILES, edge_yaml
from pki.errors import AuthorityLocked, PkiError, UnsafeFile, WouldOverwrite
from pki.io_authority import create
from pki.io_files import private_directory, read_private, write_private
from pki.io_identity import ensure_gateway_identities
from pki.io_keys import Passphrases, make_passphrase
from pki.issue import name_space
from pki.spiffe import check_trust_domain

_TEMPLATES = Path(edge.__file__).resolve().parent.parent / "policies"


def command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made when missing.")],
    trust_domain: Annotated[str, typer.Option(help="Name of the trust domain.")] = "mesh.internal",
    host: Annotated[list[str] | None, typer.Option(help="Host of the public listener; repeatable.")] = None,
    ca: Annotated[
        bool, typer.Option("--ca/--no-ca", help="Make the bundled CA and the gateway's certificates.")
    ] = True,
    passphrase_file: Annotated[Path | None, typer.Option(help="Passphrase of the issuing keys (mode 0600).")] = None,
    root_passphrase_file: Annotated[Path | None, typer.Option(help="Passphrase of the root key (mode 0600).")] = None,
) -> None:
    """Write edge.yaml, policies, CA and gateway certificates into DIR."""
    hosts = host or ["localhost", "api.example.com"]
    try:
        _check_free(directory, with_ca=ca)
        check_trust_domain(trust_domain)
        name_space(hosts)
        state = directory / "state"
        passphrases = _passphrases(state / "ca", passphrase_file, root_passphrase_file) if ca else {}
        _write_files(directory, trust_domain, hosts, with_ca=ca)
        if ca:
            _make_authority(state, trust_domain, hosts, passphrases)
    except (UnsafeFile, AuthorityLocked) as error:
        _say(str(error))
        raise typer.Exit(4) from error
    except (PkiError, OSError) as error:
        _say(str(error))
        raise typer.Exit(1) from error
    if not ca:
        _say(f"no CA was made; put the outside authority's files in place: {', '.join(OUTSIDE_FILES)}")
    _say(f"wrote {directory}; next: edge serve -c {directory / 'edge.yaml'}")


def _check_free(directory: Path, *, with_ca: bool) -> None:
    wanted = [
        "edge.yaml",
        *(f"policies/{name}" for name in POLICY_FILES),
        *(["state/ca", "state/identity"] if with_ca else []),
    ]
    for name in wanted:
        if os.path.lexists(directory / name):
            raise WouldOverwrite(f"{directory / name} exists; nothing was written. Choose another directory")


def _write_files(directory: Path, trust_domain: str, hosts: list[str], *, with_ca: bool) -> None:
    (directory / "policies").mkdir(parents=True, exist_ok=True)
    private_directory(directory / "state")
    text = edge_yaml(trust_domain=trust_domain, hosts=hosts, outside=not with_ca)
    files = {directory / "edge.yaml": text.encode()}
    files |= {directory / "policies" / name: (_TEMPLATES / name).read_bytes() for name in POLICY_FILES}
    for path, content in files.items():
        write_private(path, content)
        path.chmod(0o644)  # policies are no secret, and reviewers read them


def _passphrases(ca: Path, issuing: Path | None, root: Path | None) -> dict[str, bytes | None]:
    """Name of the key → its passphrase, None where a random one is to be made. Asked before anything is written."""
    credentials = Passphrases(ca, environ=os.environ)
    return {
        name: _from_file(file) if file is not None else _from_elsewhere(credentials, name)
        for name, file in (("root", root), ("issuing", issuing))
    }


def _make_authority(state: Path, trust_domain: str, hosts: list[str], chosen: dict[str, bytes | None]) -> None:
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
