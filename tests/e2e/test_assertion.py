"""`Edge-Assertion` from a real gateway to services that verify it: who gets in, and who only would like to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.forward.fields import MANAGED
from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.e2e.upstream import Upstream
from tests.e2e.verified import HypercornService, WerkzeugService, call
from tests.e2e.whole_gateway import Gateway, Variant, eventually, issue, make, requests_in_log, run
from tests.wire.rig import Answer, Client

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
GATEWAY = "spiffe://mesh.internal/gw/edge"
KEY = signing_key()
TOKEN = Minter(KEY, ISSUER, AUDIENCE, lifetime_s=7200).good("alice", ["orders:read"])
EDGE_YAML = f"""\
trust_domain: mesh.internal
listeners:
  public: {{bind: "127.0.0.1:0", hosts: [localhost]}}
  admin: {{bind: "127.0.0.1:0"}}
issuers:
  - {{issuer: "{ISSUER}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: keys.json}}
"""
SERVICES = """\
services:
  orders: {may_serve: ["/orders/**"], methods: [GET, POST]}
  asgi: {may_serve: ["/asgi/**", "/open/**"], methods: [GET, POST], assertion: subject}
  bound: {may_serve: ["/bound/**"], methods: [GET, POST], assertion: request, HEALTH}
  wsgi: {may_serve: ["/wsgi/**"], methods: [GET, POST], assertion: subject, HEALTH}
""".replace("HEALTH", "health: {path: /up, every_s: 0.5, unhealthy_after: 1}")
POLICY = """\
@id("everybody")
permit (principal, action in [Edge::Action::"read", Edge::Action::"write"], resource);
"""


@dataclass
class Mesh:
    """A gateway with four services, and what lies on disk about them."""

    directory: Path
    gateway: Gateway
    plain: Upstream
    asgi: HypercornService
    bound: HypercornService
    wsgi: WerkzeugService

    def clear(self) -> None:
        self.plain.clear()
        for service in (self.asgi, self.bound, self.wsgi):
            service.seen.clear()

    def ask(self, target: str, *more: str, token: str | None = TOKEN) -> Answer:
        fields = ["Host: localhost", *more] + ([f"Authorization: Bearer {token}"] if token else [])
        with Client(self.gateway) as client:
            return client.send("\r\n".join([f"GET {target} HTTP/1.1", *fields, "", ""]).encode()).answer()

    def stolen(self, name: str, target: str) -> dict[str, str]:
        """The fields of a request as the service `name` got them from the gateway."""
        seen = {"asgi": self.asgi.seen, "bound": self.bound.seen, "wsgi": self.wsgi.seen}[name]
        assert self.ask(target).status == 200
        return {field: value for field, value in seen[-1].items() if field != "connection"}

    def identity(self, name: str) -> Path:
        return self.directory / name

    @property
    def own(self) -> Path:
        """The gateway's, for what only its key can show."""
        return self.directory / "state" / "identity" / "gateway"


def route(name: str, service: str, port: int, access: str = "auth: [jwt]") -> str:
    return (
        f"  - name: {name}\n    match: {{path: /{name}/**, methods: [GET, POST]}}\n"
        f'    upstream: {{service: {service}, endpoints: ["127.0.0.1:{port}"]}}\n    {access}\n'
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    directory = make(tmp_path_factory.mktemp("assertion") / "edge", Variant(EDGE_YAML, SERVICES, POLICY))
    (directory / "keys.json").write_bytes(key_set_document(KEY))
    for name in ("asgi", "bound", "wsgi"):
        issue(directory, name)
    plain = Upstream(directory / "orders")
    asgi = HypercornService(directory / "asgi", "spiffe://mesh.internal/svc/asgi", "subject")
    bound = HypercornService(directory / "bound", "spiffe://mesh.internal/svc/bound", "request")
    wsgi = WerkzeugService(directory / "wsgi", "spiffe://mesh.internal/svc/wsgi", "subject")
    try:
        text = "routes:\n" + route("orders", "orders", plain.port) + route("asgi", "asgi", asgi.port)
        text += route("bound", "bound", bound.port) + route("wsgi", "wsgi", wsgi.port)
        text += route("open", "asgi", asgi.port, "public: {reason: a test without tokens}")
        (directory / "policies" / "routes.yaml").write_text(text)
        gateway = Gateway(directory)
        yield Mesh(directory, gateway, plain, asgi, bound, wsgi)
        assert gateway.stop() == 0
    finally:
        for service in (asgi, bound, wsgi, plain):
            service.close()


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    running.clear()
    return running


@pytest.mark.parametrize("target", ["/asgi/7", "/wsgi/7?a=%20&b", "/bound/%C3%A4?a=1", "/bound/7?", "/bound/7"])
def test_a_service_that_verifies_serves_the_gateway_and_learns_who_calls(mesh: Mesh, target: str) -> None:
    answer = mesh.ask(target)
    assert (answer.status, json.loads(answer.body)) == (200, [GATEWAY, ISSUER, "alice", ["orders:read"]])


def test_an_anonymous_caller_is_one_for_the_service_too(mesh: Mesh) -> None:
    assert json.loads(mesh.ask("/open/7", token=None).body) == [GATEWAY, None, None, []]


def test_who_asks_for_no_assertion_gets_none(mesh: Mesh) -> None:
    assert mesh.ask("/orders/7").status == 200
    assert b"assertion" not in mesh.plain.seen.lower()


def test_one_assertion_serves_many_requests_and_a_bound_one_its_own(mesh: Mesh) -> None:
    first, second = (mesh.stolen("asgi", "/asgi/7")["edge-assertion"] for _ in range(2))
    assert first == second
    first, second = (mesh.stolen("bound", "/bound/7")["edge-assertion"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("target", ["/asgi/7", "/bound/7", "/orders/7"])
def test_B1_a_client_s_own_assertion_never_arrives(mesh: Mesh, target: str) -> None:
    answer = mesh.ask(target, *(f"{name.decode()}: spoofed" for name in MANAGED if name == b"edge-assertion"))
    assert answer.status == 200
    assert b"spoofed" not in mesh.plain.seen
    assert "spoofed" not in str([service.seen for service in (mesh.asgi, mesh.bound)])
    assert mesh.ask(target, "Edge_Assertion: spoofed").status == 400  # B2
    eventually(lambda: requests_in_log(mesh.directory)[-1].get("rule.id") == "field-name", 15)


def test_a_websocket_s_handshake_is_verified_too(mesh: Mesh) -> None:
    head = "GET /bound/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Client(mesh.gateway) as client:
        client.send(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode()).read_until(b'"alice"')
    assert [seen["x-auth-subject"] for seen in mesh.bound.seen] == ["alice"]


def test_the_gateway_s_next_key_signs_as_soon_as_it_is_in_force(mesh: Mesh) -> None:
    before = mesh.stolen("asgi", "/asgi/7")["edge-assertion"].partition(".")[0]
    assert run("ca", "rotate", "gateway", "-c", mesh.directory / "edge.yaml").returncode == 0
    eventually(lambda: mesh.stolen("asgi", "/asgi/7")["edge-assertion"].partition(".")[0] != before, 20)


def checked(service: HypercornService | WerkzeugService) -> dict[str, str]:
    """A check that the service has answered."""
    eventually(lambda: len(service.checks) > 1, 20)
    return service.checks[-1]


def test_the_gateway_s_own_checks_pass_the_verifier_and_what_they_bring_opens_nothing_else(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the service does not look at who is connected (`bound`), and where any assertion does (`wsgi`)."""
    for name, service in (("bound", mesh.bound), ("wsgi", mesh.wsgi)):
        assert mesh.ask(f"/{name}/7").status == 200  # from now on there is somebody to check
        check = without(checked(service), "connection")
        assert b'/gw/edge", null, null, []]' in call(service.port, mesh.own, check, "/up").body
        mesh.clear()
        for target, changes in ((f"/{name}/7", {}), ("/up", {"x-auth-subject": "root"})):
            answer = call(service.port, mesh.own, check | changes, target)
            refused(mesh, caplog, answer, 403, "identity-fields" if changes else "request-differs")
    shown = json.loads(run("services", "--json", "-c", mesh.directory / "edge.yaml").stdout)
    assert "unhealthy" not in json.dumps(shown)


# -- past the gateway --------------------------------------------------------------------------------


def refused(mesh: Mesh, caplog: pytest.LogCaptureFixture, answer: Answer, status: int, rule: str) -> None:
    """The caller is told as little as that, the application saw nothing, the service's log has the rule."""
    assert (answer.status, json.loads(answer.body)["status"]) == (status, status)
    assert rule not in str(answer.fields) + answer.body.decode()
    assert (mesh.asgi.seen, mesh.bound.seen, mesh.wsgi.seen) == ([], [], [])
    said = [record.getMessage() for record in caplog.records if record.name == "edge.verify"]
    assert said[-1].split(":")[1].strip() == rule


def without(fields: dict[str, str], name: str) -> dict[str, str]:
    return {field: value for field, value in fields.items() if field != name}


def test_another_service_with_all_of_a_request_is_no_gateway_P09(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    fields = mesh.stolen("wsgi", "/wsgi/7")
    mesh.clear()
    answer = call(mesh.wsgi.port, mesh.identity("orders"), fields, "/wsgi/7")
    refused(mesh, caplog, answer, 403, "peer-rejected")
    assert call(mesh.wsgi.port, mesh.own, fields, "/wsgi/7").status == 200  # it was the certificate


def test_what_one_service_was_sent_it_cannot_use_at_another(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    fields = mesh.stolen("wsgi", "/wsgi/7")
    mesh.clear()
    answer = call(mesh.asgi.port, mesh.identity("wsgi"), fields, "/asgi/7")
    refused(mesh, caplog, answer, 403, "assertion-audience")


def test_without_its_assertion_a_request_is_nothing(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    for name, port in (("asgi", mesh.asgi.port), ("wsgi", mesh.wsgi.port)):
        fields = without(mesh.stolen(name, f"/{name}/7"), "edge-assertion")
        mesh.clear()
        answer = call(port, mesh.own, fields, f"/{name}/7")
        refused(mesh, caplog, answer, 401, "assertion-missing")
        assert answer.fields["www-authenticate"] == "Edge-Assertion"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"x-auth-scopes": "orders:read admin"}, "identity-fields"),
        ({"x-auth-subject": "root"}, "identity-fields"),
        ({"X-Auth-Subject": "root"}, "identity-fields"),
        ({"x-auth-roles": "admin"}, "identity-fields"),
        ({"x_auth_subject": "root"}, "look-alike"),
        ({"Edge-Assertion": "a.b.c"}, "assertion-repeated"),
    ],
)
def test_nothing_is_added_beside_a_valid_assertion(
    mesh: Mesh, caplog: pytest.LogCaptureFixture, changes: dict[str, str], rule: str
) -> None:
    fields = mesh.stolen("asgi", "/asgi/7") | changes
    mesh.clear()
    refused(
        mesh, caplog, call(mesh.asgi.port, mesh.own, fields, "/asgi/7"), 403 if "assertion" not in rule else 401, rule
    )


@pytest.mark.parametrize(
    ("target", "method", "changes"),
    [
        ("/bound/8?a=1", "GET", {}),
        ("/bound/7?a=2", "GET", {}),
        ("/bound/7?a=1", "DELETE", {}),
        ("/bound/7?a=1", "GET", {"host": "other"}),
        ("/bound/7?a=1", "GET", {"x-request-id": "other"}),
    ],
)
def test_a_bound_assertion_is_no_good_for_another_request(
    mesh: Mesh, caplog: pytest.LogCaptureFixture, target: str, method: str, changes: dict[str, str]
) -> None:
    fields = mesh.stolen("bound", "/bound/7?a=1")
    mesh.clear()
    answer = call(mesh.bound.port, mesh.own, fields | changes, target, method)
    refused(mesh, caplog, answer, 403, "request-differs")


def test_an_assertion_that_is_not_bound_does_not_pass_where_that_is_asked(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    """The service turned to `request` before its gateway did."""
    fields = mesh.stolen("asgi", "/asgi/7")
    strict = HypercornService(mesh.identity("asgi"), "spiffe://mesh.internal/svc/asgi", "request")
    try:
        mesh.clear()
        answer = call(strict.port, mesh.own, fields, "/asgi/7")
    finally:
        strict.close()
    refused(mesh, caplog, answer, 403, "assertion-mode")
    assert strict.seen == []
