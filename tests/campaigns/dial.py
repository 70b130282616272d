"""What it costs to know who answers: CPU of a dial beside that of a bare TLS 1.3 handshake with the same context.

Both are made by the parts of a worker, on its event loop, to the same service on loopback; only the CPU time of that thread
counts. `known` is a service whose certificate was met before, `new` one that shows another certificate at each dial: then its
path is built and its issuance read and proven. `first` is one dial to an address that was never asked without a certificate.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from edge import assemble
from edge.assemble import WorkerShared
from edge.audit.io_recorder import open_recorder
from edge.audit.ring import Ring
from edge.config.io_load import load
from edge.config.parse import parse
from edge.limit.store import StoreSettings
from edge.model.route import Upstream
from edge.observe import ROW_BYTES, Observer
from pki import io_output
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.io_status import STATUS, Publisher
from pki.issue import IssueRequest
from tests.e2e.upstream import Upstream as Service
from tests.e2e.whole_gateway import Variant, make, routes
from tests.edge.forward.house import to

MAX_MS = 0.5
"""Above the bare handshake, for a service whose certificate is known."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds of CPU; medians but for `first`."""

    bare: float
    known: float
    new: float
    first: float

    @property
    def above(self) -> float:
        return self.known - self.bare

    def __str__(self) -> str:
        return (
            f"bare handshake {self.bare:.3f} ms; a dial {self.known:.3f} ms, {self.above:.3f} ms above it;"
            f" with a new certificate {self.new:.3f} ms, {self.new - self.bare:.3f} ms above it;"
            f" the first of all, with its probe, {self.first:.3f} ms"
        )


def certificates(directory: Path, count: int) -> Iterator[Path]:
    """So many of the service orders, on the record."""
    now, ca = datetime.now(UTC), directory / "state" / "ca"
    with Authority.open(ca, Passphrases(ca, environ={}), now=now) as authority:
        for number in range(count):
            key = make_ec("p256")
            issued = authority.issue(IssueRequest("svc", "orders", key.public_key(), ("orders.internal",)), now)
            home, bundle = directory / f"orders-{number}", authority.bundle_pem(roles=("gw",))
            pem, root = private_pem(key), authority.root_sha256
            io_output.write(home, issued, key_pem=pem, bundle_pem=bundle, root_sha256=root, replace=False)
            yield home
        Publisher(authority, directory / "state" / STATUS).publish(now)


def worker(directory: Path) -> tuple[WorkerShared, Upstream]:
    """What dials, and whom."""
    config = parse(load(directory / "edge.yaml", os.environ))
    ring = Ring.create(directory / "ring", "worker-0")
    unexpected: list[BaseException] = []
    shared = assemble.open_shared(
        config,
        open_recorder(ring, config.audit, b"k" * 32),
        StoreSettings(socket_path="/nowhere"),
        asyncio.get_running_loop(),
        unexpected.append,
        Observer(memoryview(bytearray(ROW_BYTES))),
        lambda where, turn: None,
    )
    gateway = assemble.build(config, shared)
    assemble.adopt(config, gateway, shared, None)
    return shared, config.routes[0].upstream


async def measured(directory: Path, service: Service, homes: list[Path], count: int) -> Cost:
    shared, upstream = worker(directory)
    trust = assemble.build(parse(load(directory / "edge.yaml", os.environ)), shared).trust
    address = ("127.0.0.1", service.port)
    loop = asyncio.get_running_loop()

    async def bare() -> float:
        began = time.thread_time()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address, ssl=trust.context, server_hostname="")
        transport.abort()
        await asyncio.sleep(0)
        return (time.thread_time() - began) * 1000

    async def dial() -> float:
        began = time.thread_time()
        pinned = await shared.pool.dial(upstream, shared.pool.addresses(to(upstream)))
        pinned.connection.abort()
        await asyncio.sleep(0)
        return (time.thread_time() - began) * 1000

    await bare()
    first = await dial()
    pairs = [(await bare(), await dial()) for _ in range(count)]
    new = []
    for home in homes:
        service.present(home)
        new.append(await dial())
    shared.pool.close()
    return Cost(
        statistics.median(each for each, _ in pairs),
        statistics.median(each for _, each in pairs),
        statistics.median(new),
        first,
    )


def campaign(directory: Path, count: int) -> Cost:
    """`count` of each, and a tenth as many new certificates."""
    make(directory, Variant())
    homes = list(certificates(directory, max(3, count // 10)))
    with closing(Service(directory / "orders")) as service:
        (directory / "policies" / "routes.yaml").write_text(routes("orders", port=service.port))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measured(directory, service, homes, count))
