"""Intermediates, root and the gateway's certificates replaced under 300 requests a second, and the services' with them.

Services that renew by EST alone, as any client would; callers over HTTP/1.1 and HTTP/2, on connections that are kept and on
new ones. Nothing is restarted and no request fails. A round:

- `edge ca rotate` of intermediate and root, each while one service sleeps: it does not go on, says who is waited for, and
  refuses to begin another rotation; then the service wakes up;
- from the moment the old authority has left the CA's files, whoever still has a certificate of it is refused, as a client and
  as an upstream: how soon is measured;
- `edge ca rotate gateway`.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from edge.cli.authority import reach
from pki import desk
from pki.io_keys import Passphrases
from tests.e2e.est_client import EstClient
from tests.e2e.load import Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import (
    EDGE_YAML,
    Gateway,
    Variant,
    events_in_log,
    eventually,
    issue,
    knock,
    make,
    records,
    run,
    serving,
)
from tests.wire.speaker import SPEAKERS

WITHIN_S = 1.0
"""What is promised of the old authority, after its removal."""
_PATIENCE_S = 120
CACERTS = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: edge.internal\r\n\r\n"
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource);
"""
ROUTE = """\
  - name: {name}
    match: {{path: "/{name}/**", methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 60}}
    public: {{reason: a campaign without tokens}}
"""


@dataclass
class Outcome:
    """What was replaced, how soon the old was refused, and what callers met meanwhile."""

    rotations: int = 0
    renewals: int = 0
    refused_s: dict[str, float] = field(default_factory=dict)
    """Of each rotation the slowest, by who was refused: (`root as client`, …)."""
    waited: list[str] = field(default_factory=list)
    """The evidence it stood still with."""
    requests: int = 0
    per_s: float = 0
    slowest_s: float = 0


class Accepted:
    """Asks again and again, as somebody who should be refused one day, and remembers when it last succeeded."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self.last_s = 0.0
        self.refused = threading.Event()
        """It succeeded once, and does no more."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.02):
            began_s = time.monotonic()
            if self._is_accepted():
                self.last_s = began_s
                self.refused.clear()
            elif self.last_s:
                self.refused.set()

    def _is_accepted(self) -> bool:
        try:
            return self._ask()
        except OSError:
            return False

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(20)


def is_let_in(gateway: Gateway, identity: Path) -> bool:
    """As a client of the services listener, with this certificate."""
    try:
        with knock(gateway, identity) as client:
            client.sendall(CACERTS)
            return client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def ca(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: in this one it would wait for the callers, while it holds the authority."""
    return run("ca", *arguments, "-c", directory / "edge.yaml")


def under_way(gateway: Gateway) -> str:
    """How far a rotation is, in words."""
    state = gateway.directory / "state"
    with reach(state, Passphrases(state / "ca", environ={}), {}) as asks:
        shown = asks(desk.Show())
    assert isinstance(shown, desk.Shown)
    return shown.rotation


def refusals(directory: Path) -> list[tuple[int, object]]:
    """(how often, (status, route, rule)) of what was not answered well, as the access log has it."""
    found = [each for each in events_in_log(directory, "request") if each["event.outcome"] == "failure"]
    kinds = Counter((each["http.response.status_code"], each.get("route.name"), each.get("rule.id")) for each in found)
    return [(count, kind) for kind, count in kinds.most_common()]


@dataclass
class Parts:
    """Who takes part."""

    gateway: Gateway
    clients: list[EstClient]
    stale: Upstream
    """Answers as orders, and never renews."""
    outcome: Outcome

    def rotate(self, kind: str) -> None:
        """One rotation of an authority, from beginning to end."""
        gateway, outcome = self.gateway, self.outcome
        old = self._left_behind(kind)
        authority = gateway.directory / "state" / "ca" / ("root.pem" if kind == "root" else "svc.pem")
        before = authority.read_bytes()
        accepted = {
            f"{kind}, as a client": Accepted(lambda: is_let_in(gateway, old)),
            f"{kind}, as an upstream": Accepted(lambda: gateway.get("/stale/1", 60) == (200, "ok")),
        }
        sleeper = self.clients[-1]
        sleeper.may_look.clear()
        assert ca(gateway.directory, "rotate", kind).returncode == 1
        self._stands_still(kind, sleeper.identity.name)
        shutil.copy(self.clients[0].identity / "bundle.pem", old)  # it trusts the new, so it is not who refuses
        self.stale.present(old)
        sleeper.may_look.set()
        eventually(lambda: before not in authority.read_bytes(), _PATIENCE_S)
        removed_s = time.monotonic()
        for who, each in accepted.items():
            assert each.refused.wait(_PATIENCE_S), who
            each.end()
            outcome.refused_s[who] = max(outcome.refused_s.get(who, 0.0), each.last_s - removed_s)
        assert under_way(gateway) == ""
        outcome.rotations += 1

    def _left_behind(self, kind: str) -> Path:
        """The certificate of orders as it is now, for who does not renew."""
        old = self.gateway.directory / f"old-{kind}-{self.outcome.rotations}"
        shutil.copytree(self.clients[0].identity, old, ignore=shutil.ignore_patterns(".*"))  # what is being written
        self.stale.present(old)
        return old

    def _stands_still(self, kind: str, name: str) -> None:
        """It waits for the one service that sleeps, and says so; nothing else can be begun."""
        eventually(lambda: under_way(self.gateway).endswith(f"waiting for svc/{name}"), _PATIENCE_S)
        evidence = under_way(self.gateway)
        again = ca(self.gateway.directory, "rotate", kind)
        assert (again.returncode, again.stdout.strip()) == (1, evidence)
        self.outcome.waited.append(evidence)

    def rotate_own(self) -> None:
        """The gateway's own two certificates."""
        own = self.gateway.directory / "state" / "identity"
        before = {name: (own / name / "chain.pem").read_bytes() for name in ("gateway", "public")}
        assert ca(self.gateway.directory, "rotate", "gateway").returncode == 0
        assert all((own / name / "chain.pem").read_bytes() != chain for name, chain in before.items())
        self.outcome.rotations += 1


def campaign(
    directory: Path,
    rounds: int,
    *,
    services: int = 12,
    per_s: int = 300,
    kinds: Sequence[str] = ("intermediate", "root"),
) -> Outcome:
    """So many rounds with so many services, of which orders serves what is asked for, so many times a second."""
    names = ["orders", *(f"s{number}" for number in range(2, services + 1))]
    table = "services:\n" + "".join(f'  {name}: {{may_serve: ["/{name}/**"], methods: [GET]}}\n' for name in names)
    table = table.replace('"/orders/**"', '"/orders/**", "/stale/**"')
    edge = EDGE_YAML.replace("listeners:\n", 'listeners:\n  services: {bind: "127.0.0.1:0"}\n')
    make(directory, Variant(edge=f"{edge}workers: 2\n", services=table, policy=POLICY))
    for name in names[1:]:
        issue(directory, name)
    outcome = Outcome()
    with ExitStack() as stack:
        orders, stale = (stack.enter_context(closing(Upstream(directory / "orders"))) for _ in range(2))
        entries = [ROUTE.format(name=name, port=each.port) for name, each in (("orders", orders), ("stale", stale))]
        (directory / "policies" / "routes.yaml").write_text("routes:\n" + "".join(entries))
        gateway = stack.enter_context(serving(directory))
        clients = [EstClient(gateway, directory / "orders", orders.present)]
        clients += [EstClient(gateway, directory / name) for name in names[1:]]
        callers = [(speaks, keeps) for speaks in SPEAKERS.values() for keeps in (True, True, True, False)]
        every_s = len(callers) / per_s
        loads = [Load(gateway, 1, every_s=every_s, speaks=speaks, keeps=keeps) for speaks, keeps in callers]
        began_s = time.monotonic()
        parts = Parts(gateway, clients, stale, outcome)
        for _ in range(rounds):
            for kind in kinds:
                parts.rotate(kind)
            parts.rotate_own()
        for load in loads:
            load.end()
        for client in clients:
            client.end()
        calls = [call for load in loads for call in load.calls]
        outcome.requests, outcome.per_s = len(calls), round(len(calls) / (time.monotonic() - began_s))
        outcome.slowest_s = round(max(call.ended_s - call.began_s for call in calls), 3)
        outcome.renewals = sum(client.renewals for client in clients)
        failures = [failure for load in loads for failure in load.failures]
        failures += [failure for client in clients for failure in client.failures]
        assert not failures, (failures[:20], refusals(directory))
        assert {call.status for call in calls} == {200}
        assert outcome.renewals == len(kinds) * rounds * services
        assert not [line for line in gateway.lines if "ended" in line]
        assert gateway.stop() == 0, gateway.lines[-5:]
    records(directory)
    return outcome
