"""Idle connections: how much memory the gateway's processes hold for each that was asked once and is kept.

The callers come from several addresses of 127.0.0.0/8, because one address may open 2000. Memory is the proportional set size
(`smaps_rollup`: what a process has alone, and its part of what it shares), so processes may be added up.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge.serve.children import set_limits
from tests.campaigns.frames import Caller
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, make, routes, serving

MAX_BYTES_EACH = 40 * 1024
PER_ADDRESS = 1900
WARM = 400
"""Opened first and not counted: what is made once, for the first connections."""
VERSIONS = ("1.1", "2")
PATIENT = EDGE_YAML + "deadlines: {idle_s: 900}\n"
"""Nobody is cut for resting while the others still arrive."""
REQUEST = b"GET /orders/7 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Outcome:
    """Of one protocol."""

    version: str
    connections: int
    bytes_each: int
    resident_mib: float
    """PSS of all processes while they are open."""


def pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def memory(gateway: Gateway) -> int:
    """PSS of the supervisor and all its children."""
    return sum(map(pss_bytes, (gateway.process.pid, *gateway.children().values())))


def opened(gateway: Gateway, context: ssl.SSLContext, number: int, version: str) -> ssl.SSLSocket:
    """A connection that was asked once and is open."""
    address = f"127.0.0.{2 + number // PER_ADDRESS}"
    raw = socket.create_connection(("127.0.0.1", gateway.public), 30, source_address=(address, 0))
    tls = context.wrap_socket(raw, server_hostname="localhost")
    if version == "2":
        ask_http2(tls)
    else:
        tls.sendall(REQUEST)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok"):
            piece = tls.recv(4096)
            assert piece, answer
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    return tls


def ask_http2(tls: ssl.SSLSocket) -> None:
    caller = Caller(tls)
    caller.ask("GET", "/orders/7", is_end=True)
    content = b"".join(caller.content())
    assert (content, caller.status) == (b"ok", 200), (content, caller.status)
    caller.settle()


def measure(directory: Path, version: str, count: int) -> Outcome:
    context = ssl.create_default_context(cafile=directory / "state" / "identity" / "public" / "bundle.pem")
    context.set_alpn_protocols(["h2"] if version == "2" else ["http/1.1"])
    kept: list[ssl.SSLSocket] = []
    with serving(directory) as gateway, ThreadPoolExecutor(4) as callers:
        try:
            kept += callers.map(lambda number: opened(gateway, context, number, version), range(WARM))
            before = memory(gateway)
            kept += callers.map(lambda number: opened(gateway, context, number, version), range(WARM, WARM + count))
            after = memory(gateway)
            assert gateway.get("/orders/7") == (200, "ok")  # and it serves
            alive = gateway.ask_admin("/v1/status")[1]["connections"]
            assert alive == WARM + count, alive
        finally:
            for tls in kept:
                tls.close()
        assert gateway.stop() == 0
    return Outcome(version, count, (after - before) // count, round(after / 2**20, 1))


def campaign(directory: Path, count: int, versions: Iterable[str] = VERSIONS) -> list[Outcome]:
    """`count` idle connections over each protocol."""
    set_limits()
    make(directory, Variant(edge=PATIENT))
    found = []
    with closing(Upstream(directory / "orders")) as service:
        (directory / "policies" / "routes.yaml").write_text(routes("orders", port=service.port))
        for version in versions:
            found.append(measure(directory, version, count))
    return found
