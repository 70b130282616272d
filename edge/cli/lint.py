"""`edge lint`: what is valid and deserves a second look (`config.second_look`), in the form of `edge check`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.judged import from_here, judged
from edge.errors import Fault

if TYPE_CHECKING:
    from edge.config.settings import Config
    from edge.config.sources import Sources


def command(
    config: Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="edge.yaml to look at")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print {findings} instead")] = False,
) -> None:
    """Look for what is valid, and risky or of no use. Exit 0: nothing, 1: findings or faults, 4: unsafe or missing."""
    path, checked = judged(config, _look)
    found = [from_here(each, path) for each in (*checked.faults, *checked.looked)]
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(each) for each in found]}, indent=2))
    else:
        typer.echo("".join(f"{each}\n" for each in found) or f"{path}: nothing to say", nl=not found)
    if found:
        raise typer.Exit(1)


def _look(config: Config, sources: Sources) -> Iterator[Fault]:
    from edge.config.second_look import findings

    yield from _passphrases(config, sources)
    yield from findings(config, sources)


_REMEDIES = {
    "root": "move it to a safe place, off this machine: only edge ca rotate asks for it",
    "issuing": "seal it to this machine (systemd: LoadCredentialEncrypted=edge-ca:…), or give it by --passphrase-file",
}


def _passphrases(config: Config, sources: Sources) -> Iterator[Fault]:
    """Beside the keys that they open, where `edge init` puts them when nobody is there to be asked."""
    from edge.config import document

    file = document.read(sources.edge.name, sources.edge.raw)
    for name, remedy in _REMEDIES.items():
        beside = config.state / "ca" / f"{name}.passphrase"
        if beside.exists():
            message = f"{beside.name} lies beside the key that it opens: a copy of this directory can issue"
            yield file.fault(("state",), "passphrase-beside-key", message, remedy)
