"""`edge audit verify` and `edge audit tail`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge.audit import brief, io_tail
from edge.audit.verify import Report
from edge.audit.verify import verify as verify_log
from edge.cli.ending import exit_code_4
from edge.errors import UnsafeState
from pki.errors import LogError
from pki.tlog import checkpoint as checkpoints
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.io_log import head_copy_of
from pki.tlog.io_reader import VERIFIER_KEY, read_file
from pki.tlog.note import Verifier

PUBLISHING_S = 2.0
"""A head copy and its checkpoint are two renames; on a disk that is busy they may be this far apart."""

app = typer.Typer(help="Verify and read the signed access log.", no_args_is_help=True)

Directory = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The log; default: state/log of the gateway.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="edge.yaml, to find the log when DIR is not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


@app.command()
def verify(
    directory: Directory = None,
    key: Annotated[Path | None, typer.Option(help="Verifier key from elsewhere; default: DIR/verifier.key.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint remembered elsewhere; default: DIR.head when it is there.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check that no entry was changed, removed, reordered or cut off since it was signed. Exit 0 or 1."""
    with exit_code_4():
        log = _log(directory, config)
        verifier = _key(key or log / VERIFIER_KEY)
        report = _verify(log, verifier, checkpoint) if checkpoint else _verify_live(log, verifier)
    if as_json:
        typer.echo(json.dumps({"origin": verifier.name, **asdict(report)}))
    else:
        typer.echo(_sentence(report, verifier.name))
        if key is None:
            typer.echo("note: the key was taken from the log; --key FILE also notices a replaced log", err=True)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def tail(
    directory: Directory = None,
    count: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many entries.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new entries until interrupted.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the last entries, oldest first. Unverified: `edge audit verify` says whether they are as they were logged."""
    form = brief.document if as_json else brief.line
    with exit_code_4():
        log = _log(directory, config)
        try:
            shown = io_tail.latest(log, count)
            for index, entry in shown:
                typer.echo(form(index, entry))
            if follow:
                for index, entry in io_tail.follow(log, shown[-1][0] + 1 if shown else 0):
                    typer.echo(form(index, entry))
        except LogError as exc:
            raise UnsafeState(f"{log}: {exc}; run: edge audit verify {log}") from exc
        except (KeyboardInterrupt, BrokenPipeError):
            return


def _verify_live(log: Path, verifier: Verifier) -> Report:
    """Against the writer's own head copy, which it writes just before the checkpoint.

    Between the two a log that is served looks rolled back; one that really is stays so.
    """
    end_s = time.monotonic() + PUBLISHING_S
    while True:
        report = _verify(log, verifier, _present(head_copy_of(log)))
        if report.kind != "rollback" or time.monotonic() >= end_s:
            return report
        time.sleep(0.05)


def _verify(log: Path, verifier: Verifier, remembered: Path | None) -> Report:
    """A remembered checkpoint that this key did not sign is a finding like any other."""
    head: Checkpoint | None = None
    if remembered is not None:
        try:
            head = checkpoints.verify(_read(remembered), verifier)
        except LogError as exc:
            return Report(False, 0, kind="checkpoint", detail=f"remembered checkpoint {remembered}: {exc}")
    return verify_log(log, verifier, head)


def _sentence(report: Report, origin: str) -> str:
    if report.ok:
        behind = f"; {report.unpublished} more not yet under a checkpoint" if report.unpublished else ""
        return f"ok: {report.size} entries of {origin} are as they were logged{behind}"
    place = "" if report.first_bad_index is None else f" first bad index {report.first_bad_index}:"
    return f"FAILED: {report.kind}:{place} {report.detail}"


def _key(path: Path) -> Verifier:
    try:
        return Verifier.parse(_read(path).decode("utf-8", "replace").strip())
    except LogError as exc:
        raise UnsafeState(f"{path}: {exc}; give the log's verifier key with --key FILE") from exc


def _log(directory: Path | None, config: Path | None) -> Path:
    if directory is not None:
        return directory
    # Only here: a log that is named needs no configuration, and an auditor may have none.
    from edge.cli.locate import locate
    from edge.config import document
    from edge.config.sources import resolve

    source = locate(config)
    state = document.read(source.name, _read(source)).node(("state",))
    name = state.value if state is not None and isinstance(state.value, str) else "state"
    return Path(resolve(source.absolute(), name)) / "log"


def _present(path: Path) -> Path | None:
    return path if path.exists() else None


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as exc:
        missing = path if path.parent.is_dir() else path.parent
        hint = "a gateway begins its log when it first serves; name the log's directory: edge audit verify DIR"
        raise UnsafeState(f"{missing}: {exc.strerror}; {hint}") from exc
