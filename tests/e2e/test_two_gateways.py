"""Two gateways with one store, as two machines would be: one CA, two identities, two logs, one limit."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from edge.audit.verify import verify
from edge.cli import init, issue
from pki.tlog.note import Verifier
from tests.e2e.limit_server import REDIS, VALKEY, Server
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Gateway, Variant, eventually, records, requests_in_log, routes, serving

WORKERS = 3
QUOTA = 200 * 2 * WORKERS  # the least that is leased ahead: two units for each worker
LIMITS = f"limits:\n  - {{name: all, match: {{service: orders}}, key: [], rate: {QUOTA}/day}}\n"
ORIGINS = {"a": "mesh.internal/log", "b": "mesh.internal/log/edge-b"}


@pytest.fixture(scope="module")
def variant() -> Variant:
    return Variant(limits=LIMITS)


@pytest.fixture(scope="module")
def first(template: Path) -> Path:
    """The gateway with the CA, with what it made for the second one."""
    assert issue.main(["edge-b", "--role", "gateway", "-q", "-c", str(template / "edge.yaml")]) == 0
    return template


@pytest.fixture(params=["valkey", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "redis" and REDIS is None:
        pytest.skip("no redis-server on this machine; on Debian: apt-get install redis-server")
    with TemporaryDirectory(prefix="v") as directory:
        with Server(directory, VALKEY if request.param == "valkey" else str(REDIS)) as server:
            yield server


@pytest.fixture
def homes(first: Path, service: Upstream, store: Server, tmp_path: Path) -> list[Path]:
    """Both directories: the same files but for the log's origin, and only one with a CA."""
    shutil.copytree(first, tmp_path / "a")
    shutil.copytree(first / "policies", tmp_path / "b" / "policies")
    for name, origin in ORIGINS.items():
        home = tmp_path / name
        (home / "policies" / "routes.yaml").write_text(routes("orders", port=service.port))
        text = f"{EDGE_YAML}workers: {WORKERS}\nstore: unix://{store.socket_path}\naudit: {{origin: {origin}}}\n"
        (home / "edge.yaml").write_text(text)
    init.command(tmp_path / "b", join=str(tmp_path / "a" / "state" / "issued" / "gateway-edge-b"))
    assert not (tmp_path / "b" / "state" / "ca").exists()
    return [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def gateways(homes: list[Path]) -> Iterator[list[Gateway]]:
    with serving(homes[0]) as a, serving(homes[1]) as b:
        yield [a, b]


def ask(gateway: Gateway, times: int, statuses: Counter[int], lock: threading.Lock) -> None:
    connection = gateway.connect(10)
    for _ in range(times):
        connection.request("GET", "/orders/7")
        answer = connection.getresponse()
        answer.read()
        with lock:
            statuses[answer.status] += 1
    connection.close()


def hammer(*shares: tuple[Gateway, int]) -> Counter[int]:
    """Each gateway is asked by callers of its own, all at once; → status → how often."""
    statuses: Counter[int] = Counter()
    lock = threading.Lock()
    callers = [threading.Thread(target=ask, args=(*share, statuses, lock), daemon=True) for share in shares]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    return statuses


def test_one_limit_two_identities_two_logs(gateways: list[Gateway], homes: list[Path], service: Upstream) -> None:
    a, b = gateways
    assert "valkey-server" not in {*a.children(), *b.children()}
    together = hammer(*[(a, 50), (b, 50)] * 6)  # as many connections as make every worker likely to get one
    assert together == {200: 600}
    rest = hammer(*[(a, 75)] * 12)  # one alone cannot use what the other has leased, which is at most 1 %
    admitted = together[200] + rest[200]
    assert QUOTA * 99 // 100 <= admitted <= QUOTA
    assert set(rest) == {200, 429}
    last = hammer(*[(b, 5)] * 12)
    assert admitted + last[200] <= QUOTA
    assert last[429] >= 60 - QUOTA // 100
    served = {home: admitted_in(home, gateway) for home, gateway in zip(homes, gateways, strict=True)}
    assert sum(served.values()) == admitted + last[200]
    assert min(served.values()) >= 300
    assert service.callers == {"spiffe://mesh.internal/gw/edge", "spiffe://mesh.internal/gw/edge-b"}
    keys = {home: Verifier.parse((home / "state" / "log" / "verifier.key").read_text().strip()) for home in homes}
    assert [key.name for key in keys.values()] == list(ORIGINS.values())
    for home, other in (homes, reversed(homes)):
        assert not verify(home / "state" / "log", keys[other]).ok


def admitted_in(home: Path, gateway: Gateway) -> int:
    """Requests that the log of a stopped gateway says were answered by the service."""
    assert gateway.stop() == 0
    assert records(home) > 0
    return sum(leaf.get("http.response.status_code") == 200 for leaf in requests_in_log(home))


@pytest.mark.parametrize("store", ["valkey"], indirect=True)
def test_both_refuse_without_the_store_and_come_back_with_it(gateways: list[Gateway], store: Server) -> None:
    assert [gateway.get("/orders/7") for gateway in gateways] == [(200, "ok")] * 2
    store.kill()
    for gateway in gateways:
        answers = {gateway.get("/orders/7") for _ in range(10)}
        assert answers <= {(200, "ok"), (503, "store-unavailable")}  # what it had leased is still its own
    store.start()
    for gateway in gateways:
        eventually(lambda gateway=gateway: gateway.get("/orders/7") == (200, "ok"), 15)  # type: ignore[misc]


@pytest.mark.parametrize("store", ["valkey"], indirect=True)
def test_a_joined_gateway_is_renewed_while_it_serves(gateways: list[Gateway], homes: list[Path]) -> None:
    _, b = gateways
    connection = b.connect()
    connection.request("GET", "/orders/7")
    assert connection.getresponse().read() == b"ok"
    held = connection.sock
    before = shown(b)
    assert issue.main(["edge-b", "--role", "gateway", "-q", "--force", "-c", str(homes[0] / "edge.yaml")]) == 0
    init.command(homes[1], join=str(homes[0] / "state" / "issued" / "gateway-edge-b"))
    eventually(lambda: shown(b) != before, 15)
    connection.request("GET", "/orders/7")
    assert connection.getresponse().read() == b"ok"
    assert connection.sock is held
    connection.close()


def shown(gateway: Gateway) -> bytes:
    """The certificate of a new handshake."""
    connection = gateway.connect()
    connection.connect()
    certificate = connection.sock.getpeercert(binary_form=True)
    connection.close()
    assert isinstance(certificate, bytes)
    return certificate
