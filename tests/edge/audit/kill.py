"""The kill campaign of the access log: real writers and a real notary, SIGKILL at random moments, then the log is asked.

`run(directory, rounds, seed)` is what `scripts/campaign kill` calls with large counts and the tests with small ones. A
writer says on a pipe what it was promised: `T id` after a slot was taken, `C id` after it was completed. A pipe, like the
ring, survives its writer. Checked at the end, from the log alone:

- every T is in the log exactly once, every C exactly once with its outcome, every T without C once, with a known outcome
  only if the writer died between the completion and saying so;
- no id occurs twice; the sequences of each run of a writer are 1, 2, 3 … without a gap.
"""

from __future__ import annotations

import array
import json
import os
import random
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.audit import io_ring, notary
from edge.audit.place import NotarySettings
from edge.audit.record import AuditSettings
from edge.audit.ring import Ring
from edge.errors import NotRecordable
from pki.tlog.io_reader import LogReader

Message = dict[str, object]


def settings(state: Path, *, strict: bool = False) -> NotarySettings:
    durability: Literal["standard", "strict"] = "strict" if strict else "standard"
    return NotarySettings.of(
        state, AuditSettings("home.example/log", durability=durability, checkpoint_every_s=0.05, reserve_bytes=0)
    )


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child; its exit code is 0, or 1 after an exception."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


class NotaryProcess:
    """A notary of our own, and the supervisor's end of it."""

    def __init__(self, its: NotarySettings) -> None:
        self.socket, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> None:
            self.socket.close()
            notary.run(end, its)

        self.pid = fork(work)
        end.close()
        self.size = self.hear()["ready"]

    def hear(self, timeout_s: float = 10.0) -> Message:
        if not select.select([self.socket], [], [], timeout_s)[0]:
            raise AssertionError("the notary says nothing")
        answer = json.loads(self.socket.recv(65536) or b"{}")
        assert isinstance(answer, dict)
        return answer

    def tell(self, message: Message, end: socket.socket | None = None) -> None:
        rights = [] if end is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [end.fileno()]))]
        self.socket.sendmsg([json.dumps(message).encode()], rights)

    def ask(self, message: Message, end: socket.socket | None = None) -> Message:
        self.tell(message, end)
        return self.hear()

    def attach(self, ring: Path, writer: str, end: socket.socket | None = None) -> Message:
        return self.ask({"attach": str(ring), "writer": writer}, end)

    def seal(self) -> int:
        size = self.ask({"seal": True})["sealed"]
        assert isinstance(size, int)
        assert self.wait() == 0
        return size

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Its exit code, after which nothing of it is left."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.socket.close()
        return code


def leaves(state: Path) -> list[dict[str, object]]:
    """Every entry of the log, in order, each of which must be one JSON object."""
    return [json.loads(raw) for _, raw in LogReader(state / "log").latest(1 << 30)]


def prefix(ring: Ring, record_id: str) -> bytes:
    return b'"event.action":"request","event.sequence":%d,"event.id":"%b"' % (ring.sequence, record_id.encode())


def scribble(ring: Ring, promises: int, rng: random.Random) -> None:
    """Take and complete at random until killed, saying each promise on the pipe after it was made."""
    still_open: list[tuple[int, bytes]] = []
    while True:
        if still_open and (len(still_open) > 20 or rng.random() < 0.5):
            slot, name = still_open.pop(rng.randrange(len(still_open)))
            ring.complete(slot, b',"event.outcome":"success"}')
            os.write(promises, b"C %b\n" % name)
            continue
        name = f"{ring.instance[:8]}-{ring.sequence}".encode()
        try:
            slot = ring.take(
                prefix(ring, name.decode()) + b" " * rng.randrange(900), time.monotonic_ns(), reserved=True
            )
        except NotRecordable:
            time.sleep(0.0005)
            continue
        os.write(promises, b"T %b\n" % name)
        still_open.append((slot, name))


@dataclass
class WriterProcess:
    """One run of a writer: its ring, both ends of its nudge, and the pipe of its promises."""

    name: str
    directory: Path
    rng: random.Random
    pid: int = 0
    promised: bytes = b""
    ends: tuple[socket.socket, socket.socket] = field(init=False)
    path: Path = field(init=False)
    _pipe: int = -1

    def start(self) -> None:
        self.ends = socket.socketpair()
        self.path = io_ring.ring_path(self.directory, self.name)
        ring = Ring.create(self.path, self.name, slots=64, slot_bytes=2048, nudge=io_ring.Nudge(self.ends[0]))
        self._pipe, promises = os.pipe()
        seed = self.rng.random()
        self.pid = fork(lambda: scribble(ring, promises, random.Random(seed)))
        os.close(promises)
        ring.close()

    def listen(self) -> None:
        """Take what the pipe has, so that the writer never waits for us."""
        while select.select([self._pipe], [], [], 0)[0]:
            got = os.read(self._pipe, 65536)
            if not got:
                return
            self.promised += got

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.listen()
        os.close(self._pipe)
        for end in self.ends:
            end.close()


@dataclass(frozen=True)
class Outcome:
    """What a campaign saw."""

    taken: int
    completed: int
    unknown: int
    notary_kills: int
    writer_kills: int
    faults: tuple[str, ...]


def run(state: Path, rounds: int, seed: int, *, strict: bool = False) -> Outcome:
    """`rounds` kills: of a writer, of the notary, or of all of them at once."""
    rng = random.Random(seed)
    rings = state / "rings"
    rings.mkdir(mode=0o700, parents=True)
    its = settings(state, strict=strict)
    promised = b""
    kills: Counter[str] = Counter()
    desk = NotaryProcess(its)
    writers = [WriterProcess(f"worker-{n}", rings, rng) for n in range(2)]
    for writer in writers:
        writer.start()
        desk.attach(writer.path, writer.name, writer.ends[1])
    for _ in range(rounds):
        until = time.monotonic() + rng.uniform(0.0, 0.02)
        while time.monotonic() < until:
            for writer in writers:
                writer.listen()
        victims = rng.choice([(writers[0],), (writers[1],), (), (), (*writers,)])
        dies = not victims or rng.random() < 0.4
        for writer in victims:
            writer.kill()
            promised += writer.promised
            kills["writer"] += 1
        if dies:
            desk = _replace_notary(desk, its, writers, rng)
            kills["notary"] += 1
        for writer in victims:
            desk.ask({"gone": writer.name})
            _restart(writer, desk)
    for writer in writers:
        writer.kill()
        promised += writer.promised
        desk.ask({"gone": writer.name})
    desk.seal()
    left = [path.name for path in rings.iterdir()]
    return _judge(leaves(state), promised, kills, [f"ring {name} was left" for name in left])


def _replace_notary(
    desk: NotaryProcess, its: NotarySettings, writers: list[WriterProcess], rng: random.Random
) -> NotaryProcess:
    """Kill it, often in the middle of an answer, and give its successor everything again."""
    if rng.random() < 0.5:
        desk.tell({"gone": "nobody"})
    desk.kill()
    desk = NotaryProcess(its)
    for writer in writers:
        desk.attach(writer.path, writer.name, writer.ends[1] if writer.ends[1].fileno() >= 0 else None)
    return desk


def _restart(writer: WriterProcess, desk: NotaryProcess) -> None:
    writer.promised = b""
    writer.start()
    desk.attach(writer.path, writer.name, writer.ends[1])


def _judge(entries: list[dict[str, object]], promised: bytes, kills: Counter[str], faults: list[str]) -> Outcome:
    lines = promised.decode().splitlines()
    taken = [line[2:] for line in lines if line[0] == "T"]
    completed = {line[2:] for line in lines if line[0] == "C"}
    requests = [entry for entry in entries if entry["event.action"] == "request"]
    times = Counter(str(entry["event.id"]) for entry in requests)
    outcomes = {str(entry["event.id"]): entry["event.outcome"] for entry in requests}
    faults += [f"{name} occurs {count} times" for name, count in times.items() if count != 1]
    faults += [f"{name} was admitted and is not in the log" for name in taken if name not in times]
    faults += [
        f"{name} was completed and is {outcomes.get(name)}" for name in completed if outcomes.get(name) != "success"
    ]
    sequences: dict[str, list[int]] = {}
    for entry in requests:
        sequence = entry["event.sequence"]
        assert isinstance(sequence, int)
        sequences.setdefault(str(entry["gateway.writer"]), []).append(sequence)
    faults += [
        f"{run} has a gap" for run, numbers in sequences.items() if sorted(numbers) != [*range(1, len(numbers) + 1)]
    ]
    unknown = sum(outcome == "unknown" for outcome in outcomes.values())
    return Outcome(len(taken), len(completed), unknown, kills["notary"], kills["writer"], tuple(faults))
