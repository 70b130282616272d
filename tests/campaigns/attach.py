"""Sidecars come and go on two gateways that share a store, while callers ask 300 times a second.

Each is a process as an operator runs it: `edge attach` in front of one plain service, registered through either gateway. It
lives for a moment, is told to end, says goodbye and drains. One stays. No request may fail.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.load import Load
from tests.e2e.member import instances
from tests.e2e.mesh import Mesh, two_gateways
from tests.e2e.sidecar import Sidecar, attached
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import eventually
from tests.wire.speaker import SPEAKERS

_AT_ONCE = 2
_CALLERS = 2
"""Of each gateway over each protocol."""
_SERVED = "drained (count="


@dataclass
class Outcome:
    """What callers met, and whether the sidecars that came had a part in it."""

    came_and_went: int = 0
    served: int = 0
    """Requests that those answered."""
    requests: int = 0
    per_s: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        return not self.failed and self.served > 0

    def __str__(self) -> str:
        text = f"{self.requests} requests, {self.per_s:.0f}/s, {len(self.failed)} failed {self.failed[:3]}"
        return f"{text}; {self.came_and_went} sidecars came and went and served {self.served}"


def campaign(directory: Path, rounds: int, seed: int) -> Outcome:
    """A round is one sidecar that comes and goes."""
    with two_gateways(directory, ("orders",)) as mesh:
        return come_and_go(mesh, rounds, seed)


def come_and_go(mesh: Mesh, rounds: int, seed: int, *, per_s: int = 300) -> Outcome:
    """The same with gateways that run."""
    outcome, draw = Outcome(), random.Random(seed)
    lives = [(f"comes-{at}", draw.choice(((0, 1), (1, 0))), draw.uniform(0, 1)) for at in range(rounds)]
    with closing(Upstream(None)) as plain, standing(mesh, plain, "stays", (0, 1)):
        every_s = _CALLERS * len(mesh.gateways) * len(SPEAKERS) / per_s
        loads = [
            Load(gateway, _CALLERS, every_s=every_s, speaks=speaks)
            for gateway in mesh.gateways
            for speaks in SPEAKERS.values()
        ]
        began_s = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for served in pool.map(lambda life: _once(mesh, plain, *life), lives):
                outcome.came_and_went += 1
                outcome.served += served
        for load in loads:
            load.end()
        lasted_s = time.monotonic() - began_s
    calls = [call for load in loads for call in load.calls]
    outcome.requests, outcome.per_s = len(calls), len(calls) / lasted_s
    outcome.failed = [failure for load in loads for failure in load.failures]
    outcome.failed += [f"{call.status} {call.body!r}" for call in calls if call.status != 200]
    return outcome


def _once(mesh: Mesh, plain: Upstream, name: str, order: tuple[int, int], lives_s: float) -> int:
    """→ how many requests it answered."""
    with standing(mesh, plain, name, order) as sidecar:
        time.sleep(lives_s)
        assert sidecar.stop() == 0, sidecar.lines
        said = sidecar.line(_SERVED.replace("(", r"\("))
    return int(said.partition(_SERVED)[2].rstrip(")"))


@contextmanager
def standing(mesh: Mesh, plain: Upstream, name: str, order: tuple[int, int]) -> Iterator[Sidecar]:
    """One that is known everywhere. `order`: of the gateways, as they are named to it."""
    gateways = [f"https://localhost:{mesh.gateways[at].ports['services']}" for at in order]
    options: list[str | Path] = ["--identity", mesh.identities["orders"], "--state", mesh.homes["a"] / name]
    options += [option for url in gateways for option in ("--gateway", url)]
    with attached("orders", f"http://127.0.0.1:{plain.port}", *options, "--instance", name) as sidecar:
        sidecar.line("registered")
        for gateway in mesh.gateways:
            eventually(lambda gateway=gateway: f"orders/{name}" in instances(gateway), 10)  # type: ignore[misc]
        yield sidecar
