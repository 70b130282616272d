"""Instances come and go on two gateways that share a store, while callers ask 300 times a second.

Two questions at once. Callers of orders, whose instances join and leave all the time (through either gateway, some with
routes of their own, so that tables are swapped as well), must never meet an error. And billing, which has one instance or
none, says how soon it is: the last wrong answer of either gateway, over connections that begin anew each time and so meet
every worker, after its registration, its leaving, the end of its lease and the revocation of its certificate.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.cli.authority import reach
from pki import desk
from pki.io_keys import Passphrases
from tests.e2e.load import Load
from tests.e2e.member import Member, instances
from tests.e2e.mesh import Mesh, two_gateways
from tests.e2e.whole_gateway import eventually, issue_while_serving
from tests.wire.speaker import SPEAKERS

WITHIN_S = 1.0
"""What is promised of each."""
ENDS = ("left", "lease over", "revoked")
_WATCHED_S = 1.5
"""How long answers are looked at after each turn: longer than the promise."""
_CALLERS = 4
_EVERY_S = _CALLERS * 2 * len(SPEAKERS) / 300
_CHURNERS = 3


@dataclass
class Outcome:
    """Seconds until it was so everywhere, by what happened; and what callers of orders met."""

    turns_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in ("registered", *ENDS)})
    came_and_went: int = 0
    requests: int = 0
    failed: list[str] = field(default_factory=list)
    per_s: float = 0.0

    @property
    def is_kept(self) -> bool:
        return not self.failed and all(each <= WITHIN_S for found in self.turns_s.values() for each in found)

    def __str__(self) -> str:
        lines = [
            f"{kind:<11} {len(found)} times, slowest {max(found, default=0.0) * 1000:4.0f} ms, "
            f"median {sorted(found)[len(found) // 2] * 1000:4.0f} ms"
            for kind, found in self.turns_s.items()
            if found
        ]
        others = f"orders: {self.requests} requests, {self.per_s:.0f}/s, {len(self.failed)} failed {self.failed[:3]}"
        return "\n".join([*lines, f"{others}; {self.came_and_went} instances came and went"])


def campaign(directory: Path, rounds: int, seed: int) -> Outcome:
    """A round is one instance of billing that comes and ends, in each of the ways in turn."""
    with two_gateways(directory, ("orders", "billing"), workers=(2, 1)) as mesh:
        return churn(mesh, rounds, seed)


def churn(mesh: Mesh, rounds: int, seed: int, *, least: int = 0, callers: int = _CALLERS) -> Outcome:
    """The same with gateways that run. `least`: how many instances of orders come and go, however few rounds there are.
    `callers`: of each gateway over each protocol."""
    outcome, draw = Outcome(), random.Random(seed)
    with ExitStack() as stack:
        stack.enter_context(_standing(mesh))
        loads = [
            Load(gateway, callers, every_s=_EVERY_S, speaks=speaks)
            for gateway in mesh.gateways
            for speaks in SPEAKERS.values()
        ]
        began_s = time.monotonic()
        with _churning(mesh, outcome, draw):
            stack.enter_context(_status_copied(mesh))
            for at in range(rounds):
                _turn(mesh, outcome, ENDS[at % len(ENDS)], at)
            eventually(lambda: outcome.came_and_went >= least, 60)
        for load in loads:
            load.end()
        lasted_s = time.monotonic() - began_s
        outcome.requests = sum(len(load.calls) for load in loads)
        outcome.per_s = outcome.requests / lasted_s
        outcome.failed = [failure for load in loads for failure in load.failures]
        outcome.failed += [
            f"{call.status} {call.body!r}" for load in loads for call in load.calls if call.status != 200
        ]
    return outcome


@contextmanager
def _standing(mesh: Mesh) -> Iterator[None]:
    """Two instances of orders that stay, and renew their leases."""
    with ExitStack() as stack, _repeating(1.0, lambda: [each.register(mesh.gateways[0]) for each in members]):
        members = [stack.enter_context(closing(Member(mesh.identities["orders"], f"stays-{at}"))) for at in range(2)]
        assert [each.register(mesh.gateways[0]).status for each in members] == [201, 201]
        for gateway in mesh.gateways:  # whose every worker has heard of them by then, or is about to
            eventually(lambda gateway=gateway: {"orders/stays-0", "orders/stays-1"} <= instances(gateway), 10)  # type: ignore[misc]
        time.sleep(1.0 if mesh.has_many_workers else 0.0)
        yield
        for each in members:
            each.leave(mesh.gateways[0])


@contextmanager
def _churning(mesh: Mesh, outcome: Outcome, draw: random.Random) -> Iterator[None]:
    """Instances of orders that come and go, each by the book: it answers for as long as it was told."""
    lock = threading.Lock()
    numbers = iter(range(1_000_000))

    def once() -> None:
        with lock:
            number, lives_s = next(numbers), draw.uniform(0, 1)
            through, back = draw.choice(mesh.gateways), draw.choice(mesh.gateways)
        wish: dict[str, Any] = {"routes": [{"path": f"/new/{number}"}]} if number % 2 else {}
        with closing(Member(mesh.identities["orders"], f"comes-{number}", **wish)) as member:
            assert member.register(through).status == 201
            time.sleep(lives_s)
            told = member.leave(back)
            assert told.status == 200, told
            time.sleep(told.facts["drain_s"])
        with lock:
            outcome.came_and_went += 1

    with ExitStack() as stack:
        for _ in range(_CHURNERS):
            stack.enter_context(_repeating(0.0, once))
        yield


@contextmanager
def _status_copied(mesh: Mesh) -> Iterator[None]:
    """What the authority says, to the gateway that hosts none: as whoever runs it copies it."""

    def once() -> None:
        for name in ("revocation.json", "heartbeat.json"):
            source = mesh.homes["a"] / "state" / "status" / name
            target = mesh.homes["b"] / "state" / "status" / name
            if source.exists():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                shutil.copy2(source, target.with_suffix(".new"))
                target.with_suffix(".new").replace(target)

    with _repeating(0.1, once):
        yield


def _turn(mesh: Mesh, outcome: Outcome, end: str, at: int) -> None:
    """One instance of billing: it comes, and ends in this way."""
    issue_while_serving(mesh.homes["a"], "billing")
    with closing(Member(mesh.homes["a"] / "billing", f"turn-{at}", "billing")) as member:
        told = member.register(mesh.gateways[at % 2], ttl_s=3 if end == "lease over" else 30)
        assert told.status == 201, told
        since_s = time.monotonic()
        outcome.turns_s["registered"].append(_last_wrong_s(mesh, since_s, 200))
        if end == "left":
            assert member.leave(mesh.gateways[1]).status == 200
            since_s = time.monotonic()
        elif end == "lease over":
            since_s += told.facts["expires_in_s"]
        else:
            state, since_s = mesh.homes["a"] / "state", time.monotonic()
            with reach(state, Passphrases(state / "ca", environ={}), {}) as asks:
                assert isinstance(asks(desk.Revoke("svc", "billing", None, "keyCompromise", "campaign")), desk.Revoked)
        time.sleep(max(0.0, since_s - time.monotonic()))
        outcome.turns_s[end].append(_last_wrong_s(mesh, since_s, 502))


def _last_wrong_s(mesh: Mesh, since_s: float, right: int) -> float:
    """Seconds from `since_s` to the last answer, of either gateway, that was not yet the right one."""
    last_s = [0.0, 0.0]

    def watch(which: int) -> None:
        while (began_s := time.monotonic()) < since_s + _WATCHED_S:
            if mesh.gateways[which].get("/billing/1", timeout_s=20)[0] != right:
                last_s[which] = began_s - since_s

    watchers = [threading.Thread(target=watch, args=(which,)) for which in (0, 1)]
    for each in watchers:
        each.start()
    for each in watchers:
        each.join()
    return max(last_s)


@contextmanager
def _repeating(pause_s: float, work: Callable[[], object]) -> Iterator[None]:
    """Again and again until the block ends; what it raises is raised there."""
    stop, failures = threading.Event(), []  # type: tuple[threading.Event, list[BaseException]]

    def loop() -> None:
        while not stop.wait(pause_s):
            try:
                work()
            except BaseException as exc:
                failures.append(exc)
                return

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
