"""A quick look at what a request costs on this machine: `scripts/bench [--seconds N] [--json FILE] [SCENARIO …]`.

A whole gateway with its own authority, embedded store and signed log; a service behind it; a load generator of our own. The
figure is CPU time, user and system, of all the gateway's processes over completed requests, from /proc/PID/stat: it moves
little with what else the machine does, as rates and latencies would. With --json FILE the run is written there, and compared
with what was there before. Of `attach` it is the CPU time of the sidecar alone: what it adds to a request.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.issuer.minting import Minter, key_set_document, signing_key

ROOT = Path(__file__).parents[2]
EDGE = [sys.executable, "-m", "edge"]
AUDIENCE, ISSUER = "bench-api", "https://issuer.bench"
TICK = os.sysconf("SC_CLK_TCK")

EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:0", hosts: [localhost]}
issuers:
  - {issuer: "https://issuer.bench", audience: [bench-api], algorithms: [ES256], jwks: jwks.json}
"""
SERVICES = 'services:\n  backend: {may_serve: ["/**"]}\n  attached: {may_serve: ["/**"]}\n'
ROUTES = """\
routes:
  - name: backend
    match: {{path: "/**", methods: [GET, POST]}}
    upstream: {{service: backend, endpoints: ["127.0.0.1:{port}"]}}
    auth: [jwt]
"""
ATTACHED = """\
  - name: attached
    match: {{path: "/attached/**", methods: [GET, POST]}}
    upstream: {{service: attached, endpoints: ["127.0.0.1:{port}"], strip_prefix: /attached}}
    auth: [jwt]
"""
LIMITS = """\
limits:
  - {name: subject, match: {service: backend}, key: [subject], rate: 10000000/second, on_store_failure: closed}
"""
CEDAR = """\
@id("read-write")
permit (principal is Edge::User, action in [Edge::Action::"read", Edge::Action::"write"],
        resource in Edge::Service::"backend")
when { principal.scopes.contains("bench") };

@id("attached")
permit (principal is Edge::User, action in [Edge::Action::"read", Edge::Action::"write"],
        resource in Edge::Service::"attached");
"""


@dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    path: str = "/json"
    tokens: str = "one"
    connections: int = 32
    body: int = 0
    status: int = 200
    version: str = "1.1"
    reconnect: bool = False
    is_attached: bool = False
    """Through a sidecar, whose CPU time it is."""


SCENARIOS = {
    "json-h1": Scenario(),
    "json-h1-1ktok": Scenario(tokens="thousand"),
    "json-h2": Scenario(version="2"),
    "post-16k": Scenario(path="/sink", body=16_384),
    "file-100k": Scenario(path="/100k.bin"),
    "file-10m": Scenario(path="/10m.bin", connections=4),
    "connect": Scenario(connections=16, reconnect=True),
    "badsig": Scenario(tokens="forged", status=401),
    "attach": Scenario(path="/attached/json", is_attached=True),
}


def set_up(home: Path, stack: ExitStack, *, with_sidecar: bool) -> int | None:
    """Gateway directory, tokens, and the services behind it, which are started; → pid of the sidecar."""
    subprocess.run([*EDGE, "init", home, "--host", "localhost"], cwd=ROOT, check=True, capture_output=True)
    (home / "edge.yaml").write_text(EDGE_YAML)
    policies = home / "policies"
    for old in policies.glob("orders.*"):
        old.unlink()
    (policies / "services.yaml").write_text(SERVICES)
    (policies / "routes.yaml").write_text("routes: []\n")
    (policies / "limits.yaml").write_text(LIMITS)
    key = signing_key()
    (home / "jwks.json").write_bytes(key_set_document(key))
    minter = Minter(key, ISSUER, AUDIENCE)
    good = [minter.good(f"user-{number:04}", ["bench"]) for number in range(1000)]
    forged = [token.rpartition(".")[0] + "." + other.rpartition(".")[2] for token, other in itertools.pairwise(good)]
    for name, tokens in (("one", good[:1]), ("thousand", good), ("forged", forged)):
        (home / name).write_text("\n".join(tokens))
    (policies / "backend.cedar").write_text(CEDAR)
    backend = start("examples.bench.backend", issued(home, "backend"))
    routes = ROUTES.format(port=port_of(backend, stack))
    sidecar = None
    if with_sidecar:
        sidecar, port = attach(home, port_of(start("examples.bench.backend"), stack), stack)
        routes += ATTACHED.format(port=port)
    (policies / "routes.yaml").write_text(routes)
    return sidecar


def issued(home: Path, service: str) -> Path:
    script: list[str | Path] = [
        sys.executable,
        ROOT / "scripts" / "issue-cert.py",
        service,
        "-c",
        home / "edge.yaml",
        "--quiet",
    ]
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
    return home / "state" / "issued" / service


def attach(home: Path, port: int, stack: ExitStack) -> tuple[int, int]:
    """A sidecar in a session of its own; → pid, and port."""
    options: list[str | Path] = [
        "--listen",
        "127.0.0.1:0",
        "--identity",
        issued(home, "attached"),
        "--state",
        home / "sidecar",
    ]
    process, found = ready([*EDGE, "attach", "attached", "--to", f"http://127.0.0.1:{port}", *options], "attach", home)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return process.pid, found


def port_of(backend: subprocess.Popen[str], stack: ExitStack) -> int:
    """Of a backend that was just started; it ends with the stack."""
    stack.callback(backend.wait, 10)
    stack.callback(backend.terminate)
    assert backend.stdout is not None
    with backend.stdout as said:
        return int(said.readline())


def start(module: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ready(command: Sequence[str | Path], name: str, home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """What `edge` starts, in a session of its own, and the port of its listener of this name."""
    said = home / f"said-{name}"
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, start_new_session=True)
    while process.poll() is None:
        found = re.search(rf"^ready {name}=\S+:(\d+)", said.read_text(), re.M)
        if found:
            return process, int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"bench: {name} ended with {process.returncode}: {said.read_text()}")


def cpu_s(session: int) -> float:
    """User and system time of every process of a session."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += sum(map(int, fields[11:15]))
    return total / TICK


def measure(home: Path, session: int, port: int, scenario: Scenario, seconds: float) -> dict[str, float]:
    """One scenario, after a second of warming up at most."""
    given: dict[str, Any] = asdict(scenario) | {
        "port": port, "tokens": str(home / scenario.tokens), "ca": str(home / "state/identity/public/bundle.pem"),
    }  # fmt: skip
    found: dict[str, float] = {}
    for duration in (min(1.0, seconds), seconds):
        before = cpu_s(session)
        done = subprocess.run(
            [sys.executable, "-m", "examples.bench.load", json.dumps(given | {"seconds": duration})],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(done.stdout)
        found["cpu_us"] = (cpu_s(session) - before) * 1e6 / max(1, found["requests"])
        found["rps"] = found["requests"] / duration
    return found


def line(name: str, found: dict[str, float], before: dict[str, float] | None) -> str:
    change = f"{100 * (found['cpu_us'] / before['cpu_us'] - 1):+.0f} %" if before else ""
    figures = f"{found['cpu_us']:>8.0f} {found['rps']:>9.0f} {found['p50_ms']:>8.2f} {found['p99_ms']:>8.2f}"
    return f"{name:<14} {figures} {found['errors']:>7.0f}  {change}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios one after the other; 1 when there was any error."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; without one: all")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each scenario, after 1 s of warming up")
    parser.add_argument("--json", type=Path, help="compare with the run in this file, then write this one there")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.scenario) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    last = json.loads(chosen.json.read_text()) if chosen.json is not None and chosen.json.exists() else {}
    found: dict[str, dict[str, float]] = {}
    print(f"{'scenario':<14} {'CPU µs':>8} {'rps':>9} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}  CPU against last run")
    names = chosen.scenario or list(SCENARIOS)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-"))) / "edge"
        sidecar = set_up(home, stack, with_sidecar=any(SCENARIOS[name].is_attached for name in names))
        gateway, port = ready([*EDGE, "serve", "-c", home / "edge.yaml"], "public", home)
        stack.callback(gateway.wait, 20)
        stack.callback(gateway.terminate)
        for name in names:
            measured = sidecar if SCENARIOS[name].is_attached and sidecar is not None else gateway.pid
            found[name] = measure(home, measured, port, SCENARIOS[name], chosen.seconds)
            print(line(name, found[name], last.get(name)), flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(last | found, indent=1) + "\n")
    return int(any(each["errors"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
