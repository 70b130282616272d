"""Judge a configuration in a child process, and come back with what it says whatever happens to the child.

Policies go through a native parser. What is known to kill it is refused before it (`authz.scan`); what is not known yet
kills a child here and becomes one diagnostic, instead of a command that vanishes. The supervisor does the same for reloads
in its own loop (`serve.errand`).
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge.config.certificates import finding
from edge.config.parse import parse
from edge.config.settings import Config
from edge.config.sources import Sources
from edge.errors import ConfigError, Fault
from edge.model.route import Route

Look = Callable[[Config, Sources], Iterable[Fault]]
"""Finds what is valid and deserves to be said all the same."""
_TIMEOUT_S = 60.0
_FAILED = 70


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a configuration; valid exactly when `faults` is empty."""

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...] = ()
    bundle_hash: str = ""
    hosts: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    findings: tuple[Fault, ...] = ()
    """Certificates that no client would accept: a gateway that shows them already goes on."""
    looked: tuple[Fault, ...] = ()
    """What is valid and deserves a second look, when that was asked for."""


def check(
    sources: Sources,
    judge: Callable[[Sources], Config] = parse,
    *,
    look: Look | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Checked:
    """Parse `sources` in a fork. Never raises for what is wrong with them. `look`: at what is valid."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(sources, judge, look, writing)
    os.close(writing)
    try:
        said, is_late = _receive(reading, time.monotonic() + timeout_s)
    finally:
        os.close(reading)
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status == 0 and not is_late:
        # Our own child, forked a moment ago: its pickle is as trusted as this process.
        checked = pickle.loads(said)  # noqa: S301
        assert isinstance(checked, Checked)
        return checked
    cause = f"did not end within {timeout_s:g} s" if is_late else _cause(status)
    remedy = "undo the last edit of a policy file; please report it with the file"
    return Checked(
        (Fault(sources.edge.name, 1, 1, "parser-died", f"the process that judges the files {cause}", remedy),)
    )


def _answer(
    sources: Sources,
    judge: Callable[[Sources], Config],
    look: Look | None,
    writing: int,
) -> None:
    """In the child: say what came of it, and end without running what belongs to the parent."""
    code = _FAILED
    try:
        try:
            config = judge(sources)
            found = [finding(each, time.time()) for each in config.certificates]
            checked = Checked(
                (),
                config.warnings,
                config.bundle_hash,
                config.listeners.public.hosts,
                config.routes,
                tuple(fault for fault in found if fault is not None),
                tuple(look(config, sources)) if look is not None else (),
            )
        except ConfigError as exc:
            checked = Checked(exc.faults)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(checked, pipe)
        code = 0
    finally:
        bug = sys.exc_info()[1]
        if bug is not None:  # told, not hidden; and nothing above this frame may run in the child
            os.write(2, f"edge: bug: {type(bug).__name__}: {bug}\n".encode())
        os._exit(code)


def _receive(reading: int, deadline_s: float) -> tuple[bytes, bool]:
    """Everything until the other end closes, and whether that took too long."""
    parts: list[bytes] = []
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([reading], [], [], left_s)[0]:
            return b"".join(parts), True
        part = os.read(reading, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with code {os.WEXITSTATUS(status)}"
