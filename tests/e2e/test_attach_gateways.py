"""Sidecars and more than one gateway: two that are good, one in an attacker's hands, and a root that is replaced."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.cli.authority import reach
from pki import desk
from pki.io_authority import Authority
from pki.io_keys import Passphrases
from pki.issue import UPSTREAM_ROLES
from pki.succession import TrustedBundle
from tests.campaigns import attach
from tests.campaigns.rotation import ca, under_way
from tests.e2e.load import Load
from tests.e2e.mesh import two_gateways
from tests.e2e.sidecar import attached, certificate, refused_bytes, shown_by
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import EDGE_YAML, Variant, eventually, make, serving
from tests.pki.founding import found_authority

DOORS = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n'
ROUTES = """\
routes:
  - name: orders
    match: {path: /orders/**, methods: [GET]}
    upstream: {service: orders}
    public: {reason: a test without tokens}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    edge = EDGE_YAML.replace("listeners:\n", DOORS) + "registration: {loopback: true}\n"
    directory = make(tmp_path_factory.mktemp("gateways") / "edge", Variant(edge=edge))
    (directory / "policies" / "routes.yaml").write_text(ROUTES)
    return directory


@pytest.fixture
def plain() -> Iterator[Upstream]:
    with closing(Upstream(None)) as upstream:
        yield upstream


def test_sidecars_come_and_go_at_two_gateways_and_when_one_goes_they_turn_to_the_other(
    tmp_path: Path, plain: Upstream
) -> None:
    with two_gateways(tmp_path, ("orders",)) as mesh:
        outcome = attach.come_and_go(mesh, 2, 7, per_s=60)
        assert outcome.is_kept, outcome
        first, second = mesh.gateways
        with attach.standing(mesh, plain, "one", (0, 1)) as sidecar:
            assert [gateway.get("/orders/7") for gateway in mesh.gateways] == [(200, "ok")] * 2
            first.kill()
            assert second.get("/orders/7") == (200, "ok")
            assert sidecar.stop() == 0  # it says goodbye to whoever is there
            assert not [line for line in sidecar.lines if "could not be given up" in line]
            eventually(lambda: second.get("/orders/7") == (502, "upstream-unreachable"), 10)


# -- whom to trust -------------------------------------------------------------------------------------


@contextmanager
def posing(identity: Path, answers: dict[str, Callable[[], bytes]]) -> Iterator[int]:
    """A listener with a gateway's certificate and key, which answers GET as it likes; → its port."""

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = answers[self.path]() if self.path in answers else b""
            self.send_response(200 if body else 503)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Edge-Bundle", '"evil"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def test_a_gateway_in_an_attacker_s_hands_gives_a_sidecar_no_root_of_its_own(
    home: Path, tmp_path: Path, plain: Upstream
) -> None:
    now = datetime.now(UTC)
    evil = tmp_path / "evil" / "state" / "ca"
    evil.parent.mkdir(parents=True, mode=0o700)
    found_authority(evil, now - timedelta(hours=1))
    impostor = certificate(tmp_path / "evil", "edge", role="gw")
    with Authority.open(evil, Passphrases(evil, environ={}), now=now) as authority:
        believed = (home / "orders" / "bundle.pem").read_bytes()
        offered = TrustedBundle.seal(
            authority.status_signer(),
            trust_domain="mesh.internal",
            number=1_000,
            pem=believed + authority.bundle_pem(roles=UPSTREAM_ROLES),
            successions=(),
            now=now,
        ).raw
    with serving(home) as gateway:
        stolen = home / "state" / "identity" / "gateway"
        with posing(stolen, {"/v1/authority/bundle": lambda: offered}) as port:
            options: list[str | Path] = ["--identity", home / "orders", "--state", tmp_path / "state", "--no-register"]
            options += ["--gateway", f"https://localhost:{port}"]
            with attached("orders", f"http://127.0.0.1:{plain.port}", *options) as sidecar:
                sidecar.line(r"error: a bundle was refused, the one before stays in force \(cause=signer\b")
                assert refused_bytes(sidecar.port, impostor) == b""
                sidecar.line(r"refused .*rule=untrusted\b")
                assert plain.seen == b""
                assert refused_bytes(sidecar.port, stolen).startswith(b"HTTP/1.1 200 OK\r\n")  # it serves on as before
                assert not (tmp_path / "state" / "identity").exists()  # and has taken nothing down
                assert sidecar.stop() == 0
        assert gateway.stop() == 0


def test_a_root_is_replaced_through_a_sidecar_and_no_request_fails(home: Path, tmp_path: Path, plain: Upstream) -> None:
    state = tmp_path / "state"
    old = (home / "state" / "ca" / "root.pem").read_bytes()
    with serving(home) as gateway:
        services = f"https://localhost:{gateway.ports['services']}"
        options: list[str | Path] = ["--identity", home / "orders", "--gateway", services, "--state", state]
        with attached("orders", f"http://127.0.0.1:{plain.port}", *options) as sidecar:
            sidecar.line("registered")
            eventually(lambda: gateway.get("/orders/7") == (200, "ok"), 10)
            before = shown_by(sidecar.port)
            load = Load(gateway, 2, every_s=0.05)
            assert ca(home, "rotate", "root").returncode == 1
            assert "svc/orders" in under_way(gateway)  # its word is waited for
            eventually(lambda: under_way(gateway) == "", 60)
            new = (home / "state" / "ca" / "root.pem").read_bytes()
            eventually(lambda: old not in (state / "identity" / "bundle.pem").read_bytes(), 20)
            load.end()
            assert not load.failures
            assert {call.status for call in load.calls} == {200}
            assert old != new
            assert new in (state / "identity" / "bundle.pem").read_bytes()
            assert shown_by(sidecar.port) != before
            eventually(lambda: has_newest(home), 20)
            assert sidecar.stop() == 0
        assert gateway.stop() == 0


def has_newest(directory: Path) -> bool:
    """Whether the authority counts the sidecar among those who have the newest bundle."""
    state = directory / "state"
    with reach(state, Passphrases(state / "ca", environ={}), {}) as asks:
        shown = asks(desk.Show())
    assert isinstance(shown, desk.Shown)
    (own,) = [each for each in shown.certificates if each.name == "orders" and each.is_current]
    return own.bundle == shown.bundle_sequence
