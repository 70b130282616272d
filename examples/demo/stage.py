"""Starts and ends processes, runs commands. Whatever was started here ends here, whatever happened in between."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from examples.demo.promise import Broken, expect

ROOT = Path(__file__).resolve().parents[2]
EDGE = Path(sys.executable).with_name("edge")
"""The console script, beside the interpreter that runs this."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_READY_WITHIN_S = 20.0
_END_WITHIN_S = 15.0
_COMMAND_WITHIN_S = 30.0
_LOOK_S = 0.01


def wait_for(what: str, done: Callable[[], bool], within_s: float) -> float:
    """Seconds until `done()`. Raises: Broken when it takes longer than `within_s`."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > within_s:
            raise Broken(f"{what}: not within {within_s:g} s")
        time.sleep(_LOOK_S)
    return time.monotonic() - began


def _end_with_parent() -> None:
    """In the child: SIGTERM comes also when the demo is killed in a way it cannot notice (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Actor:
    """One process in a session of its own, so that Ctrl-C reaches the demo alone, and what it says in files."""

    def __init__(self, name: str, command: list[str], directory: Path, environment: dict[str, str]) -> None:
        self.name = name
        self._out, self._err = directory / f"{name}.out", directory / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def ready(self) -> str:
        """The rest of the line that begins with `ready`. Raises: Broken when it does not come."""
        found: list[str] = []

        def look() -> bool:
            found[:] = re.findall(r"^ready (.*)\n", self.output + self.errors, re.MULTILINE)
            return bool(found) or self._process.poll() is not None

        wait_for(f"{self.name} is ready", look, _READY_WITHIN_S)
        if not found:
            raise Broken(f"{self.name} ended with {self._process.returncode}:\n{self.errors}")
        return found[0]

    def port(self, listener: str) -> int:
        """Of a gateway: where this listener is, by its ready line."""
        return int(dict(item.split("=") for item in self.ready().split())[listener].rpartition(":")[2])

    def end(self) -> int:
        """Ask it to end; → its exit code. One that does not listen is killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


class Stage:
    """All processes of a demo, and the directory everything lies in."""

    def __init__(self, directory: Path, *, verbose: bool) -> None:
        self.directory = directory
        self.is_verbose = verbose
        self._actors: list[Actor] = []
        self._said = directory / "said"
        self._said.mkdir()
        # No EDGE_CONFIG or the like of the shell around us: the demo is the same everywhere.
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # impatience must not leave half of them running
            signal.signal(number, signal.SIG_IGN)
        for actor in reversed(self._actors):
            actor.end()

    def start(self, name: str, *command: str | Path) -> Actor:
        """Start a process; it may not be ready yet."""
        actor = Actor(name, [str(word) for word in command], self._said, self._environment)
        self._actors.append(actor)
        return actor

    def start_example(self, name: str, module: str, *arguments: str | Path) -> Actor:
        """`python -m MODULE …`."""
        return self.start(name, sys.executable, "-m", module, *arguments)

    def run(self, *command: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Raises: Broken when its exit code is not `code`; None is any."""
        words = [str(word) for word in command]
        if self.is_verbose:
            print(f"     $ {' '.join(words)}", flush=True)
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_WITHIN_S,
        )
        if code is not None:
            expect(
                f"exit code of {' '.join(words[:3])} ({(done.stderr or done.stdout).strip()})", done.returncode, code
            )
        return done

    def edge(self, *arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `edge …`."""
        return self.run(EDGE, *arguments, code=code)

    def last_words(self) -> str:
        """What the processes said on stderr, for when something broke."""
        said = ((actor.name, actor.errors.splitlines()[-20:]) for actor in self._actors)
        return "".join(f"\n{name}:\n  " + "\n  ".join(lines) for name, lines in said if lines)
