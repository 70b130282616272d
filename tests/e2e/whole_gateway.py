"""Whole gateways for the tests that meet them as an operator does: how one is made and started, and what its log says.

The one set-up of the end-to-end tests, the tests on the wire and the campaigns: `make` writes a home, `serving` runs it. The
fixtures on top of it are in `conftest.py`, the service behind it in `upstream.py`, callers in `load.py`.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.audit.verify import verify
from edge.cli import init
from edge.cli.authority import reach
from pki import desk, io_output
from pki.io_authority import Authority
from pki.io_identity import ensure_gateway_identities
from pki.io_keys import Passphrases, make_ec, make_passphrase, private_pem
from pki.issue import IssueRequest
from pki.tlog.io_log import head_copy_of
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier
from tests.e2e import forked
from tests.e2e.forked import ROOT as ROOT
from tests.e2e.forked import Process
from tests.e2e.heard import Heard
from tests.pki.founding import found_authority

CHILDREN = ("edge-worker", "edge-notary", "edge-ca", "valkey-server", "edge-watcher")

EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {bind: "127.0.0.1:0", hosts: [localhost]}
  admin: {bind: "127.0.0.1:0"}
"""
SERVICES = 'services:\n  orders: {may_serve: ["/orders/**", "/new/**"], methods: [GET]}\n'
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource in Edge::Service::"orders");
"""


def route(name: str, port: int) -> str:
    return (
        f"  - name: {name}\n    match: {{hosts: [localhost], path: /{name}/**, methods: [GET]}}\n"
        f'    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10}}\n'
        "    public: {reason: a test without tokens}\n"
    )


def routes(*names: str, port: int) -> str:
    return "routes:\n" + "".join(route(name, port) for name in names)


@dataclass(frozen=True)
class Variant:
    """What the gateway of one test has that the next one's has not."""

    edge: str = EDGE_YAML
    services: str = SERVICES
    policy: str = POLICY
    limits: str = "limits: []\n"
    hosts: tuple[str, ...] = ("localhost",)


def make(directory: Path, variant: Variant) -> Path:
    """What `edge init` writes, changed to the variant, and a certificate for the service orders; routes are still to be
    written, for they name its port."""
    init.command(directory, host=list(variant.hosts), ca=False)
    found(directory / "state", variant.hosts)
    for policy in (directory / "policies").glob("orders.*"):
        policy.unlink()
    (directory / "edge.yaml").write_text(variant.edge)
    for name, text in (("services.yaml", variant.services), ("limits.yaml", variant.limits)):
        (directory / "policies" / name).write_text(text)
    (directory / "policies" / "anybody.cedar").write_text(variant.policy)
    issue(directory, "orders")
    return directory


def found(state: Path, hosts: Sequence[str]) -> None:
    """The authority and the gateway's certificates as `edge init` makes them, but for what a passphrase costs."""
    now, ca = datetime.now(UTC), state / "ca"
    found_authority(
        ca,
        now,
        hosts=hosts,
        secrets={name: make_passphrase() for name in ("root", "issuing")},
        unattended=("root", "issuing"),
    )
    known = Passphrases(ca, environ={})
    ensure_gateway_identities(state, trust_domain="mesh.internal", hosts=hosts, now=now, passphrases=known)


def copied(template: Path, directory: Path, port: int) -> Path:
    """A home of one's own, whose route leads to this port."""
    shutil.copytree(template, directory)
    (directory / "policies" / "routes.yaml").write_text(routes("orders", port=port))
    return directory


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run(*map(str, arguments))


class Gateway:
    """One `edge serve` in a session of its own, and what it said on stderr."""

    def __init__(self, directory: Path, start: Callable[..., Process] = forked.start) -> None:
        self.directory = directory
        self.started = time.monotonic()
        self.process = start("serve", "-c", str(directory / "edge.yaml"))
        self.heard = Heard(self.process)
        self.lines = self.heard.lines
        self.ports = {name: int(port) for name, port in re.findall(r" (\w+)=127\.0\.0\.1:(\d+)", self.line(r"^ready "))}
        """Of the open listeners."""
        self.public, self.admin = self.ports["public"], self.ports["admin"]

    def line(self, pattern: str, within_s: float = 30) -> str:
        """The first line that matches."""
        return self.heard.line(pattern, within_s)

    def connect(self, timeout_s: float = 15) -> http.client.HTTPSConnection:
        bundle = self.directory / "state" / "identity" / "public" / "bundle.pem"
        context = ssl.create_default_context(cafile=bundle)
        return http.client.HTTPSConnection("localhost", self.public, timeout=timeout_s, context=context)

    def get(self, path: str, timeout_s: float = 15) -> tuple[int, str]:
        """Status, and the problem's reason or the body; over a connection of its own."""
        connection = self.connect(timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.headers["content-type"] == "application/problem+json":
                body = json.loads(body)["type"].rpartition("/")[2]
            return answer.status, body
        finally:
            connection.close()

    def ask_admin(self, path: str) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=15)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def children(self) -> dict[str, int]:
        """Living children by the name the kernel knows them by; of the workers any."""
        return {name: pid for pid, name in self._living()}

    def pids(self, name: str) -> set[int]:
        """Of the living children of this name."""
        return {pid for pid, own_name in self._living() if own_name == name}

    def _living(self) -> Iterator[tuple[int, str]]:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = stat.read_text().rpartition(")")
            except OSError:
                continue
            state, parent = tail.split()[:2]
            if int(parent) == self.process.pid and state not in "ZX":
                yield int(stat.parent.name), head.partition("(")[2]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        """Unless it has ended already."""
        if self.process.poll() is None:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):
                self.ended()

    def ended(self) -> int:
        code = self.process.wait(30)
        self.heard.close()
        return code


def knock(gateway: Gateway, identity: Path, name: str = "edge") -> ssl.SSLSocket:
    """A connection to the services listener, as whose certificate and key lie there. `name`: the gateway's."""
    context = ssl.create_default_context(cafile=identity / "bundle.pem")
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    raw = socket.create_connection(("127.0.0.1", gateway.ports["services"]), 10)
    return context.wrap_socket(raw, server_hostname=f"{name}.internal")


@contextmanager
def serving(directory: Path, start: Callable[..., Process] = forked.start) -> Iterator[Gateway]:
    """A gateway that does not outlive the block, whatever happened in it."""
    gateway = Gateway(directory, start)
    try:
        yield gateway
    finally:
        gateway.kill()


def eventually(what: Callable[[], bool], within_s: float) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < within_s, f"not within {within_s} s"
        time.sleep(0.01)
    return time.monotonic() - began


def records(directory: Path) -> int:
    """Leaves of a log that verifies."""
    log = directory / "state" / "log"
    report = verify(log, Verifier.parse((log / "verifier.key").read_text().strip()))
    assert report.ok, report
    assert head_copy_of(log).exists()
    return report.size


def issue(directory: Path, *names: str) -> None:
    """Services' certificates and keys, each into the directory of its name."""
    now, ca = datetime.now(UTC), directory / "state" / "ca"
    with Authority.open(ca, Passphrases(ca, environ={}), now=now) as authority:
        for name in names:
            key = make_ec("p256")
            issued = authority.issue(IssueRequest("svc", name, key.public_key(), (f"{name}.internal",)), now)
            io_output.write(
                directory / name,
                issued,
                key_pem=private_pem(key),
                bundle_pem=authority.bundle_pem(roles=("gw",)),
                root_sha256=authority.root_sha256,
                replace=True,
            )


def issue_while_serving(directory: Path, name: str) -> None:
    """The same, asked of the gateway that holds the authority open; a new one each time."""
    ca, key = directory / "state" / "ca", make_ec("p256")
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with reach(directory / "state", Passphrases(ca, environ={}), {}) as asks:
        made = asks(desk.Issue("svc", name, public, (f"{name}.internal",), (), 86_400, "test"))
    assert isinstance(made, desk.Certified)
    pem, root = private_pem(key), made.root_sha256
    io_output.write(
        directory / name, made.issued, key_pem=pem, bundle_pem=made.bundle_pem, root_sha256=root, replace=True
    )


def events_in_log(directory: Path, kind: str) -> list[dict[str, object]]:
    """Of one kind, oldest first."""
    entries = [json.loads(entry) for _, entry in LogReader(directory / "state" / "log").latest(1_000_000)]
    return [entry for entry in entries if entry["event.action"] == kind]


def requests_in_log(directory: Path) -> list[dict[str, object]]:
    found = events_in_log(directory, "request")
    assert len({entry["event.id"] for entry in found}) == len(found)  # exactly one leaf each
    return found
