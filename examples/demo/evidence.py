"""Promise 7: the log holds every request, verifies, and does not once anything in it was touched."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.demo.mesh import Mesh
from examples.demo.promise import Promises, expect, require
from examples.demo.stage import Stage, wait_for
from pki.tlog.tiles import WIDTH, bundle_path, length_prefixed, split_entries

_PUBLISHED_WITHIN_S = 5.0
_CUT = 3


class Evidence:
    """The log of the running gateway, and what an auditor keeps of it elsewhere: its key and checkpoints."""

    def __init__(self, mesh: Mesh) -> None:
        self._stage: Stage = mesh.stage
        self._mesh = mesh
        self._log = mesh.state / "log"
        self._home = mesh.stage.directory / "audit"
        self._home.mkdir()
        self._key = self._home / "verifier.key"
        shutil.copy(self._log / "verifier.key", self._key)
        self._early_size = self._size = 0

    def keep_early_copy(self) -> None:
        """The whole log as it is now, in order to put it back later."""
        self._early_size = self._copy("early")

    def show(self, promises: Promises) -> None:
        """The log is whole; changed copies are found out."""
        promises.chapter("Everything is in a signed log, and a changed log is found out")
        with promises.promise("one leaf for each request of this demo, and no other") as facts:
            facts.append(self._each_request_once())
        with promises.promise("edge audit verify → ok") as facts:
            self._size = self._copy("whole")
            facts.append(f"{self._size} leaves under a signed checkpoint")
        middle = self._size // 2
        with promises.promise("a copy with one byte changed → fails") as facts:
            facts.append(self._found("changed", middle, _change_byte, {"edit"}))
        with promises.promise("a copy with one record removed → fails") as facts:
            facts.append(self._found("removed", middle, _remove, {"deletion"}))
        with promises.promise("a copy with its tail cut → fails") as facts:
            facts.append(self._found("cut", self._size - _CUT, _cut_tail, {"truncation"}))
        with promises.promise("an older copy, whole in itself, against a remembered checkpoint → fails") as facts:
            facts.append(self._rolled_back())

    def sealed(self, promises: Promises) -> None:
        """The gateway is told to stop."""
        with promises.promise(
            "SIGTERM → the gateway drains, seals its log and exits 0; the sealed log verifies"
        ) as facts:
            expect("exit code", self._mesh.gateway.end(), 0)
            report = self._verify(self._log, code=0)
            expect("leaves behind the last checkpoint", report["unpublished"], 0)
            facts.append(f"{report['size']} leaves")

    def _each_request_once(self) -> str:
        made = self._mesh.journal.answers
        recorded: Counter[str] = Counter()
        statuses: dict[str, int | None] = {}

        def look() -> bool:
            leaves = [leaf for leaf in self._mesh.leaves() if leaf["event.action"] == "request"]
            recorded.clear()
            recorded.update(leaf["event.id"] for leaf in leaves)
            statuses.update((leaf["event.id"], leaf.get("http.response.status_code")) for leaf in leaves)
            return made.keys() <= recorded.keys()

        wait_for("a leaf for each request", look, _PUBLISHED_WITHIN_S)
        expect("requests without a leaf", made.keys() - recorded.keys(), set())
        expect("requests with more than one", {each for each, count in recorded.items() if count > 1}, set())
        unanswered = set(recorded) - set(made)  # of callers whose worker was killed
        require(f"leaves of no answer: {unanswered}", len(unanswered) <= self._mesh.journal.lost)
        expect("status codes that differ", {key for key in made if statuses[key] != made[key]}, set())
        return f"{len(made)} answered requests, {len(recorded)} leaves"

    def _copy(self, name: str) -> int:
        """Copy the log between two checkpoints; → its size. The copy verifies."""
        target = self._home / name / "log"

        def published() -> bool:
            return bool(self._verify(self._log, code=0)["unpublished"] == 0)

        wait_for("a checkpoint over all leaves", published, _PUBLISHED_WITHIN_S)
        shutil.copytree(self._log, target)
        report = self._verify(target, code=0)
        return int(report["size"])

    def _found(self, name: str, index: int, attack: Callable[[Path, int, int], None], kinds: set[str]) -> str:
        """Attack a copy; the verifier must name what was done and the first bad index."""
        whole, copy = self._home / "whole" / "log", self._home / name / "log"
        shutil.copytree(whole, copy)
        attack(copy, index, self._size)
        report = self._verify(copy, code=1)
        expect("first bad index", report["first_bad_index"], index)
        expect(f"kind is one of {kinds}", report["kind"] in kinds, True)
        return f"{report['kind']}, first bad index {index}"

    def _rolled_back(self) -> str:
        """The log is put back to what it was: it verified by itself when it was copied, but a later head is remembered."""
        early, remembered = self._home / "early" / "log", self._home / "whole" / "log" / "checkpoint"
        report = self._verify(early, "--checkpoint", remembered, code=1)
        expect("kind", report["kind"], "rollback")
        expect("first bad index", report["first_bad_index"], self._early_size)
        return f"rollback, first bad index {self._early_size}"

    def _verify(self, log: Path, *more: str | Path, code: int) -> dict[str, Any]:
        done = self._stage.edge("audit", "verify", log, "--key", self._key, "--json", *more, code=code)
        report: dict[str, Any] = json.loads(done.stdout)
        expect(f"the verdict of {report}", report["ok"], code == 0)
        return report


def _change_byte(log: Path, index: int, size: int) -> None:
    """A `success` that was none, say: one bit of one byte inside the record."""
    path, entries, place = _bundle(log, index, size)
    start = sum(len(piece) for piece in length_prefixed(entries)[: 2 * place + 1])
    raw = bytearray(path.read_bytes())
    raw[start + len(entries[place]) // 2] ^= 1
    path.write_bytes(raw)


def _remove(log: Path, index: int, size: int) -> None:
    path, entries, place = _bundle(log, index, size)
    del entries[place]
    path.write_bytes(b"".join(length_prefixed(entries)))


def _cut_tail(log: Path, index: int, size: int) -> None:
    """Everything from `index` on, and the bundles behind it."""
    path, entries, place = _bundle(log, index, size)
    path.write_bytes(b"".join(length_prefixed(entries[:place])))
    for later in range(index // WIDTH + 1, (size + WIDTH - 1) // WIDTH):
        (log / bundle_path(later, min(WIDTH, size - later * WIDTH))).unlink()


def _bundle(log: Path, index: int, size: int) -> tuple[Path, list[bytes], int]:
    """File, entries and place of an entry."""
    number, place = divmod(index, WIDTH)
    path = log / bundle_path(number, min(WIDTH, size - number * WIDTH))
    return path, split_entries(path.read_bytes()), place
