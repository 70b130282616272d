"""Floods, and a second client beside each: it must fare no worse than beside valid load that costs the worker the same.

The worker has a core for itself, everybody else the other one. While a flood runs, the second client (of another address)
asks at a steady pace, on one connection and on new ones; then it does the same beside valid requests, as many as make the
worker as busy.

What is compared is how long the gateway keeps it waiting, so nothing else may: worker, second client and the service behind
it are of the real-time class where that is permitted, and floods, valid load and what serves those of the idle class, in
processes of their own. (In one interpreter with the service that a flood goes to, it waited for that by 5 ms at a time.)
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.campaigns.flood_attacks import ATTACKS, TOKEN, Where
from tests.campaigns.flood_process import AUDIENCE, ISSUER, KEY, Sink, worker_ns
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import ROOT, Gateway, Variant, make, requests_in_log, serving
from tests.wire.rig import EDGE_YAML, POLICY
from tests.wire.test_pressure import POLICY as USERS

SECONDS = 4.0
THREADS = 4
PACE_S = 0.01
NEW_EACH = 10
"""Every so manieth request is on a new connection."""
MOST_MIB = 64.0
LEFT_MIB = 24.0
GIVEN_BACK_S = 20.0
WORSE, WORSE_S = 1.25, 0.003
"""What a comparison of two runs of a few seconds on a shared machine cannot tell from the same."""

SETTINGS = f"""\
shed: {{max_connections_per_prefix: 500, failed_checks_per_s: 1, failed_checks_burst: 400}}
deadlines: {{handshake_s: 2, head_s: 2, body_s: 2, write_s: 2, idle_s: 60}}
issuers:
  - {{issuer: "{ISSUER}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: keys.json}}
"""
SERVICES = """\
services:
  orders: {may_serve: ["/orders/**", "/victim/**", "/quick/**", "/small/**", "/slashes/**"]}
"""
ROUTE = """\
  - name: {name}
    match: {{path: /{name}/**, methods: [GET, POST]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10}}
{more}
"""
PUBLIC = "    public: {reason: a test without tokens}"
BOUNDS = "    websocket: {max_message_frames: 1000, max_message_bytes: 1000000}"


class Place:
    """A gateway with one worker, and what stands behind it."""

    def __init__(self, directory: Path, stack: ExitStack, *, is_compared: bool) -> None:
        """`is_compared`: valid load has a service of its own, so that the second client's is not busy with it."""
        key = signing_key()
        make(directory, Variant(EDGE_YAML.replace("HTTP2", "front") + SETTINGS, SERVICES, POLICY))
        (directory / "keys.json").write_bytes(key_set_document(key))
        (directory / "policies" / "users.cedar").write_text(USERS)
        self.directory = directory
        self.upstream = Upstream(directory / "orders")
        stack.callback(self.upstream.close)
        os.environ[TOKEN] = Minter(key, ISSUER, AUDIENCE).good("mallory", [])
        os.environ[KEY] = json.dumps(key.as_dict(private=True))
        for name in (TOKEN, KEY):
            stack.callback(os.environ.pop, name)
        port, sink_port = self._others(stack) if is_compared else self._own(stack)
        ports = {"orders": port, "victim": self.upstream.port, "quick": port, "slashes": port, "small": sink_port}
        more = {
            "quick": "    auth: [jwt]",
            "small": f"{PUBLIC}\n{BOUNDS}",
            "slashes": f"{PUBLIC}\n    max_body_bytes: 1000",
        }
        (directory / "policies" / "routes.yaml").write_text(
            "routes:\n"
            + "".join(ROUTE.format(name=each, port=ports[each], more=more.get(each, PUBLIC)) for each in ports)
        )
        self.gateway = stack.enter_context(serving(directory))
        self.worker = self.gateway.children()["edge-worker"]

    def _others(self, stack: ExitStack) -> list[int]:
        """Ports of a process that serves whoever is not the second client, whose own upstream is not busy with them."""
        process = stack.enter_context(self._process("upstream", str(self.directory)))
        assert process.stdout is not None
        return [int(port) for port in process.stdout.readline().split()]

    def _own(self, stack: ExitStack) -> list[int]:
        sink = Sink(self.directory / "orders")
        stack.callback(sink.close)
        return [self.upstream.port, sink.port]

    @contextmanager
    def _process(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "tests.campaigns.flood_process", *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
            finally:
                if process.stdin is not None:
                    process.stdin.close()  # the upstream's sign to leave; the others end by themselves
        assert process.returncode == 0, arguments

    def pin(self) -> None:
        """The worker alone on the first core, if there is another for everybody else."""
        first, *others = sorted(os.sched_getaffinity(0))
        if others:
            os.sched_setaffinity(0, others)
            for pid in (self.gateway.process.pid, *self.gateway.children().values()):
                for task in tasks(pid):
                    os.sched_setaffinity(task, [first] if pid == self.worker else others)
            with suppress(PermissionError):
                for task in (*tasks(self.worker), *tasks(os.getpid())):
                    os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(1))

    def resident_mib(self) -> float:
        return int(Path(f"/proc/{self.worker}/statm").read_text().split()[1]) * 4096 / (1 << 20)

    def beside(self, *arguments: str) -> Run:
        """What the second client sees while that process runs, from when it has begun to when it ends."""
        run, before = Run(), self.resident_mib()
        with self._process(*arguments) as process, ExitStack() as stack:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            second = stack.enter_context(Second(self.gateway))
            began_s, began_ns = time.monotonic(), worker_ns(self.worker)
            while process.poll() is None:
                run.ask(second)
                run.grown_mib = max(run.grown_mib, self.resident_mib() - before)
            run.share = (worker_ns(self.worker) - began_ns) / 1e9 / (time.monotonic() - began_s)
            run.ends = json.loads(process.stdout.read())
        return run

    def end(self) -> None:
        """All that was asked is in the log, and nobody has complained."""
        assert self.gateway.stop() == 0
        requests_in_log(self.directory)
        said = [line for line in self.gateway.lines if "unexpected" in line or "Traceback" in line]
        assert not said, said

    def left_mib(self, before: float) -> float:
        """Above what there was before, when there was time to give it back."""
        end_s = time.monotonic() + GIVEN_BACK_S
        while self.resident_mib() - before > LEFT_MIB and time.monotonic() < end_s:
            time.sleep(0.2)
        return self.resident_mib() - before


def tasks(pid: int) -> list[int]:
    """Its threads, for the kernel to schedule."""
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


class Second:
    """The second client: of another address than the rest, over HTTP/1.1, one request at a time."""

    REQUEST = b"GET /victim/7 HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def __init__(self, gateway: Gateway) -> None:
        self._port = gateway.public
        trust = gateway.directory / "state" / "identity" / "public" / "bundle.pem"
        self._context = ssl.create_default_context(cafile=trust)
        self._context.set_alpn_protocols(["http/1.1"])
        self._kept = self._connected()

    def _connected(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self._port), 20, source_address=("127.0.0.2", 0))
        return self._context.wrap_socket(raw, server_hostname="localhost")

    def ask(self) -> None:
        self._ask(self._kept)

    def ask_anew(self) -> None:
        with self._connected() as tls:
            self._ask(tls)

    def _ask(self, tls: ssl.SSLSocket) -> None:
        tls.sendall(self.REQUEST)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            piece = tls.recv(4096)
            assert piece, ("cut", answer)
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    def __enter__(self) -> Second:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()


@dataclass
class Run:
    """What the second client saw beside one flood, or beside valid load."""

    share: float = 0.0
    """Of a core, that the worker was busy."""
    kept_s: list[float] = field(default_factory=list)
    anew_s: list[float] = field(default_factory=list)
    """How long requests took on the connection that is kept, and on new ones."""
    grown_mib: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)

    def ask(self, second: Second) -> None:
        count = len(self.kept_s) + len(self.anew_s)
        began_s = time.monotonic()
        if count % NEW_EACH == NEW_EACH - 1:
            second.ask_anew()
            self.anew_s.append(time.monotonic() - began_s)
        else:
            second.ask()
            self.kept_s.append(time.monotonic() - began_s)
        time.sleep(max(0.0, PACE_S - (time.monotonic() - began_s)))

    def times(self) -> tuple[float, float, float]:
        """Median and 95th percentile on the kept connection, median on new ones."""
        kept = sorted(self.kept_s)
        return statistics.median(kept), kept[len(kept) * 95 // 100], statistics.median(self.anew_s or [0.0])

    def __str__(self) -> str:
        p50, p95, anew = (f"{each * 1000:.1f}" for each in self.times())
        return f"{self.share:4.0%} busy, {len(self.kept_s)} asked, p50 {p50} p95 {p95} new {anew} ms"


@dataclass
class Outcome:
    """Of one flood."""

    attack: str
    run: Run
    beside_valid: Run | None
    left_mib: float = 0.0

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found = [f"ended with {end!r}" for end in self.run.ends if end not in ATTACKS[self.attack][1]]
        if not self.run.ends:
            found.append("did not run")
        if self.run.grown_mib > MOST_MIB or self.left_mib > LEFT_MIB:
            found.append(f"{self.run.grown_mib:.0f} MiB grown, {self.left_mib:.0f} MiB left")
        if self.beside_valid is not None:
            names = ("p50", "p95", "p50 of new connections")
            pairs = zip(names, self.run.times(), self.beside_valid.times(), strict=True)
            found += [
                f"{name} {here:.4f} s, not {there:.4f}" for name, here, there in pairs if here > WORSE * there + WORSE_S
            ]
        return found

    def __str__(self) -> str:
        lines = [f"{self.attack}: {self.run}, +{self.run.grown_mib:.0f} MiB, {self.run.ends}"]
        if self.beside_valid is not None:
            lines.append(f"    beside valid load: {self.beside_valid}")
        return "\n".join(lines + [f"    FAULT {fault}" for fault in self.faults()])


def campaign(directory: Path, seconds: float, attacks: Iterable[str] = ATTACKS) -> list[Outcome]:
    """Every attack for so long, and valid load for as long."""
    outcomes = []
    with ExitStack() as stack:
        place = Place(directory, stack, is_compared=True)
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        stack.callback(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
        place.pin()
        load(place, 0.5, seconds)  # what is made once
        for name in attacks:
            before = place.resident_mib()
            where = (name, str(directory), str(place.gateway.public))
            run = place.beside("attack", *where, str(seconds), str(THREADS))
            outcome = Outcome(name, run, load(place, run.share, seconds), place.left_mib(before))
            print(outcome, flush=True)
            outcomes.append(outcome)
        place.end()
    return outcomes


def load(place: Place, share: float, seconds: float) -> Run:
    """Beside valid requests that make the worker so busy; the second client's own are in both shares."""
    where = (str(place.directory), str(place.gateway.public))
    return place.beside("load", str(place.worker), f"{share:.3f}", *where, str(seconds), str(THREADS))


ALONE = "connections"
"""It leaves none for others of its address."""


def once(directory: Path, attacks: Iterable[str]) -> list[Outcome]:
    """Each attack once, all of them together, while the second client is served. Nothing is compared."""
    together = [name for name in attacks if name != ALONE]
    with ExitStack() as stack:
        place = Place(directory, stack, is_compared=False)
        where, before = Where(directory, place.gateway.public), place.resident_mib()
        pool = stack.enter_context(ThreadPoolExecutor(len(together)))
        second = stack.enter_context(Second(place.gateway))
        run = Run()
        ends: dict[str, str] = {}
        for wave in (together, [ALONE]):
            running = {name: pool.submit(ATTACKS[name][0], where) for name in wave}
            while not all(future.done() for future in running.values()):
                run.ask(second)
                run.grown_mib = max(run.grown_mib, place.resident_mib() - before)
            ends |= {name: future.result() for name, future in running.items()}
        left_mib = place.left_mib(before)
        place.end()
    return [Outcome(name, Run(grown_mib=run.grown_mib, ends={end: 1}), None, left_mib) for name, end in ends.items()]
