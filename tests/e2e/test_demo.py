"""`scripts/demo`, as the README tells people to run it: every promise is kept, it says so, and nothing is left behind."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.demo.promise import Broken, Promises, expect, require

ROOT = Path(__file__).parents[2]
WITHIN_S = 300
"""With patience for a machine that has other work; the demo's own is what is bounded."""
MAX_CPU_S = 60
"""Of the 120 s in which a reader has seen it, installation included."""
PROMISED = (
    "1.1  good token → 200",
    "1.2  no token → 401",
    "1.3  token for another audience, expired, forged → 401",
    "1.4  good token without orders:write, POST → 403",
    "1.5  request 101 of 100 a minute → 429 quota-exceeded with Retry-After",
    "1.6  of all these, the service got the allowed ones and no other",
    "2.1  routes.yaml gains /reports/** → served within 1 s",
    "2.2  a broken edit → one line file:line:column, the old state serves on",
    "2.3  the edit undone, edge reload → exit 0",
    "2.4  one connection carried steady requests through all of it",
    "3.1  rogue with no certificate → 502 upstream-identity, 0 bytes",
    "3.2  rogue with a self-made CA with the same names → 502 upstream-identity, 0 bytes",
    "3.3  rogue with a valid certificate of another service → 502 upstream-identity, 0 bytes",
    "3.4  rogue by a route outside its grant → refused at load, 0 bytes",
    "3.5  rogue at the address and port of the stopped service → 502 upstream-identity, 0 bytes",
    "3.6  the real service is back at its address → 200",
    "4.1  one token over both → 200; the service saw the same",
    "4.2  no token → 401, without orders:write → 403, no route → 404; word for word alike",
    "4.3  50 requests over each are 100 → the next is 429 over either",
    "5.1  issue-cert.py --role gateway, edge init --join → a second gateway; the same token → 200",
    "5.2  both asked at once for more than 1000 an hour → never one more, at least 990",
    "5.3  each wrote its own log; the second one stops, and its log verifies",
    "6.1  kill -9 of a worker under load → replaced within 3 s",
    "6.2  every answer it gave is a leaf, and what it was about to answer is one too",
    "7.1  one leaf for each request of this demo, and no other",
    "7.2  edge audit verify → ok",
    "7.3  a copy with one byte changed → fails; edit, first bad index",
    "7.4  a copy with one record removed → fails; deletion, first bad index",
    "7.5  a copy with its tail cut → fails; truncation, first bad index",
    "7.6  an older copy, whole in itself, against a remembered checkpoint → fails; rollback, first bad index",
    "7.7  SIGTERM → the gateway drains, seals its log and exits 0",
)


AUDIT_VERIFY = "audit verify -c "


def first_request(shown: list[str]) -> str:
    """The first of the lines to paste, pasted, with the one before that gets it a token: what the service behind answers."""
    at = next(number for number, line in enumerate(shown) if line.startswith("TOKEN="))
    pasted = subprocess.run(
        ["bash", "-c", "".join(shown[at : at + 2])], capture_output=True, text=True, timeout=WITHIN_S
    )
    return pasted.stdout


def cpu_of_the_ended_s() -> float:
    """Of our children and theirs, so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Running:
    """A demo under way; its processes carry a mark in their environment, its files lie in a directory of their own."""

    process: subprocess.Popen[str]
    files: Path
    mark: str

    def left_over(self) -> list[str]:
        """Processes that still carry the mark."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes():
                    found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # ended meanwhile, or not ours
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Running]:
    mark = f"DEMO_MARK_{uuid.uuid4().hex}"
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), mark: "1"}  # an empty one, as far as it matters
    command = [sys.executable, "-m", "examples.demo", "--keep"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield Running(process, tmp_path, mark)
        if process.poll() is None:
            process.terminate()


def test_every_promise_is_kept_in_time_and_nothing_is_left(demo: Running) -> None:
    before_s, began = cpu_of_the_ended_s(), time.monotonic()
    assert demo.process.stdout is not None
    shown: list[str] = []
    while not shown or (shown[-1] and AUDIT_VERIFY not in shown[-1]):
        shown.append(demo.process.stdout.readline())
    assert first_request(shown).startswith(("HTTP/1.1 200", "HTTP/2 200")), shown
    demo.process.send_signal(signal.SIGINT)
    output = "".join(shown) + demo.process.communicate(timeout=WITHIN_S)[0]
    assert demo.process.returncode == 0, output
    kept = [line.removeprefix("✓ ") for line in output.splitlines() if re.match(r"✓ \d", line)]
    assert [line[: len(promise)] for line, promise in zip(kept, PROMISED, strict=True)] == list(PROMISED), output
    assert all(re.search(r"\(\d+ ms\)$|\(\d+\.\d s\)$", line) for line in kept), output
    assert f"{len(PROMISED)} promises kept, 0 broken" in output
    assert time.monotonic() - began < WITHIN_S, output
    assert cpu_of_the_ended_s() - before_s < MAX_CPU_S
    assert demo.left_over() == []
    assert list(demo.files.iterdir()) == []


def test_interrupted_it_ends_whatever_it_started(demo: Running) -> None:
    assert demo.process.stdout is not None
    while not (line := demo.process.stdout.readline()).startswith("✓ up"):
        assert line, "it ended before it was up"
    assert demo.left_over()
    demo.process.send_signal(signal.SIGINT)
    output, _ = demo.process.communicate(timeout=WITHIN_S)
    assert demo.process.returncode == 130, output
    assert demo.left_over() == []
    assert list(demo.files.iterdir()) == []


def _nobody_answers() -> None:
    raise ConnectionRefusedError("nobody")


def test_a_broken_promise_is_shown_and_counted_and_the_next_one_is_still_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    promises = Promises()
    promises.chapter("Arithmetic")
    with promises.promise("one and one are three"):
        expect("sum", 1 + 1, 3)
    with promises.promise("somebody answers"):
        _nobody_answers()
    with promises.promise("one and one are two") as facts:
        facts.append("counted")
    shown = re.sub(r"\d+ ms", "0 ms", capsys.readouterr().out)
    assert shown.splitlines()[1:] == [
        "1  Arithmetic",
        "✗ 1.1  one and one are three  (0 ms)",
        "       sum: expected 3, got 2",
        "✗ 1.2  somebody answers  (0 ms)",
        "       nobody",
        "✓ 1.3  one and one are two; counted  (0 ms)",
    ]
    assert (promises.kept, promises.broken) == (1, 2)


def test_an_unforeseen_error_is_not_taken_for_a_broken_promise() -> None:
    with pytest.raises(AttributeError), Promises().promise("a bug of the demo itself"):
        raise AttributeError("x")


def test_what_is_required_must_hold() -> None:
    with pytest.raises(Broken, match="required, and not so: a wall"):
        require("a wall", False)
