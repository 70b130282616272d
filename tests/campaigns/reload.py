"""Reloads and rolling restarts under load: no request fails, and each is decided by one generation, from route to leaf.

Generation N differs from the one before in all that decides a request, and each answer tells by which it was decided:

- its routes are named `orders-N` and `door-N`, its policies `orders-N` and `door-N` (the leaf names both);
- its answers say N in a field (`answer_headers`);
- an odd one takes `/orders` off the path, which the upstream says back in its body;
- an odd one forbids the door: 403, where an even one answers 200.

So the bundle hash in the leaf must be the hash of the N that all of these say, and N must have been current while the
request was under way: not before it was asked for, and not after the next one was confirmed. HTTP/1.1 and HTTP/2, on
connections that are kept and on new ones; three workers, which are replaced one by one in the midst of it.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge.serve.control_socket import Answer as Told
from edge.serve.control_socket import ask
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, make, records, requests_in_log, serving
from tests.wire.rig import Answer
from tests.wire.speaker import LOST, Http1Speaker, Http2Speaker, Speaker

WORKERS = 3
CALLERS = (
    ("1.1", True),
    ("1.1", True),
    ("1.1", True),
    ("1.1", False),
    ("2", True),
    ("2", True),
    ("2", True),
    ("2", False),
)
"""(version, whether the connection is kept)"""
EVERY_S = len(CALLERS) / 300
"""From one request of a caller to its next, so that all together make 300 a second."""
ASKED = ("orders",) * 7 + ("door",)
"""What each caller asks for in turn. More of the door would be refused than the log writes one by one (50 a second)."""
BETWEEN_S = 0.05
"""Between two reloads: each generation gets requests."""
SERVICES = 'services:\n  orders: {may_serve: ["/**"], methods: [GET]}\n'
ROUTE = """\
  - name: {name}-{number}
    match: {{path: "/{name}/**", methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10{rewriting}}}
    public: {{reason: a campaign without tokens}}
    answer_headers: {{content-security-policy: "generation {number}"}}
"""
POLICY = """\
@id("{name}-{number}")
{effect} (principal is Edge::Anonymous, action in Edge::Action::"read", resource == Edge::Route::"{name}-{number}");
"""


def said(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@dataclass(frozen=True)
class Generation:
    """One configuration, and when it was put in force."""

    number: int
    asked_s: float
    applied_s: float
    bundle: str


@dataclass(frozen=True)
class Call:
    """One answered request."""

    began_s: float
    ended_s: float
    version: str
    name: str
    answer: Answer


@dataclass
class Outcome:
    """What the campaign saw."""

    reloads: int = 0
    restarts: int = 0
    requests: int = 0
    per_s: float = 0
    by_version: dict[str, int] = field(default_factory=dict)
    generations_seen: int = 0
    slowest_s: float = 0


class Callers:
    """The load: callers that never stop."""

    def __init__(self, gateway: Gateway) -> None:
        self.calls: list[Call] = []
        self.failures: list[str] = []
        self._gateway = gateway
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=kind, daemon=True) for kind in CALLERS]
        for thread in self._threads:
            thread.start()

    def _call(self, version: str, is_kept: bool) -> None:
        speaker: Speaker = Http1Speaker(self._gateway) if version == "1.1" else Http2Speaker(self._gateway)
        names = itertools.cycle(ASKED)
        next_s = time.monotonic()
        while not self._stop.wait(next_s - time.monotonic()):
            name, began_s = next(names), time.monotonic()
            next_s = max(next_s + EVERY_S, began_s)
            try:
                answer = speaker.ask(path=b"/%b/7" % name.encode("ascii"))
            except LOST as exc:
                self.failures.append(f"{version} {name}: {exc!r}")
                continue
            self.calls.append(Call(began_s, time.monotonic(), version, name, answer))
            if not is_kept:
                speaker.close()
        speaker.close()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


def write(directory: Path, number: int, port: int) -> None:
    """Put generation `number` in place with one rename, so that nobody can read a half of it."""
    is_odd = number % 2 == 1
    policies = directory / f"generation-{number}"
    shutil.copytree(directory / "policies", policies)
    rewriting = {"orders": ", strip_prefix: /orders" if is_odd else "", "door": ""}
    effect = {"orders": "permit", "door": "forbid" if is_odd else "permit"}
    table = [ROUTE.format(name=name, number=number, port=port, rewriting=rewriting[name]) for name in effect]
    (policies / "routes.yaml").write_text("routes:\n" + "".join(table))
    (policies / "anybody.cedar").write_text(
        "".join(POLICY.format(name=name, number=number, effect=effect[name]) for name in effect)
    )
    staged = directory / "edge.new"
    staged.write_text(f"{EDGE_YAML}workers: {WORKERS}\npolicies: generation-{number}\n")
    staged.rename(directory / "edge.yaml")


def told(gateway: Gateway, command: str, within_s: float = 60) -> Told:
    answer = ask(gateway.directory / "state" / "run", command, within_s)
    assert answer.ok, answer
    return answer


def reload(gateway: Gateway, number: int, port: int) -> Generation:
    asked_s = time.monotonic()
    write(gateway.directory, number, port)
    answer = told(gateway, "reload")
    shutil.rmtree(gateway.directory / f"generation-{number - 1}")
    return Generation(number, asked_s, time.monotonic(), answer.bundle_hash)


def campaign(directory: Path, rounds: int, restarts: int) -> Outcome:
    """`rounds` reloads; the first of `restarts` rolling restarts begins at once, the next when the one before is over."""
    make(directory, Variant(services=SERVICES))
    service = Upstream(directory / "orders")
    service.by_target = {b"/orders/7": said(b"whole"), b"/7": said(b"stripped"), b"/door/7": said(b"open")}
    write(directory, 0, service.port)
    outcome = Outcome(reloads=rounds)
    with closing(service), serving(directory) as gateway, ThreadPoolExecutor(1) as operator:
        status = told(gateway, "status").status
        assert status is not None
        generations = [Generation(0, 0, 0, status.bundle_hash)]
        callers = Callers(gateway)
        began_s, restart = time.monotonic(), Future[Told]()
        restart.set_result(Told(ok=True))
        number = 0
        while number < rounds or outcome.restarts < restarts or not restart.done():
            if restart.done() and outcome.restarts < restarts:
                assert restart.result().ok
                outcome.restarts += 1
                restart = operator.submit(told, gateway, "reload-workers", 300)
            number += 1
            generations.append(reload(gateway, number, service.port))
            time.sleep(BETWEEN_S)
        assert not restarts or restart.result().restarted == WORKERS, restart.result()
        callers.end()
        outcome.reloads, outcome.requests = number, len(callers.calls)
        outcome.per_s = round(outcome.requests / (time.monotonic() - began_s), 1)
        assert gateway.stop() == 0
    assert callers.failures == [], callers.failures[:20]
    outcome.by_version = dict(Counter(call.version for call in callers.calls))
    outcome.slowest_s = round(max(call.ended_s - call.began_s for call in callers.calls), 3)
    outcome.generations_seen = judge(directory, callers.calls, generations)
    return outcome


def judge(directory: Path, calls: list[Call], generations: list[Generation]) -> int:
    """Ask log and answers; gives how many generations decided something."""
    records(directory)
    leaves = {str(leaf["event.id"]): leaf for leaf in requests_in_log(directory)}
    by_bundle = {generation.bundle: generation for generation in generations}
    assert len(by_bundle) == len(generations)
    seen = set()
    for call in calls:
        leaf = leaves.pop(call.answer.fields["x-request-id"])
        generation = by_bundle[str(leaf["policy.version"])]
        assert agrees(call, leaf, generation.number), (call, leaf, generation)
        assert was_current(call, generation, generations), (call, generation)
        seen.add(generation.number)
    assert not leaves, leaves  # every leaf belongs to an answer
    return len(seen)


def agrees(call: Call, leaf: dict[str, object], number: int) -> bool:
    """Whether answer and leaf say that generation `number`, and no other, decided and forwarded."""
    is_odd, answer = number % 2 == 1, call.answer
    named = f"{call.name}-{number}"
    body: bytes | None = {"orders": b"stripped" if is_odd else b"whole", "door": None if is_odd else b"open"}[call.name]
    if (leaf["route.name"], leaf["policy.ids"], leaf["http.version"]) != (named, [named], call.version):
        return False
    if body is None:
        return (answer.status, answer.reason, leaf["event.outcome"]) == (403, "forbidden", "failure")
    spoken = answer.fields.get("content-security-policy")
    return (answer.status, answer.body, spoken) == (200, body, f"generation {number}")


def was_current(call: Call, generation: Generation, generations: list[Generation]) -> bool:
    """After the answer to a reload nobody decides by what was before, and nobody foresees what is not asked for yet."""
    following = generations[generation.number + 1 : generation.number + 2]
    return generation.asked_s <= call.ended_s and all(call.began_s <= after.applied_s for after in following)
