"""A gateway that joins by a token: enrolled, renewed and told what is revoked over the network, and nothing half-written."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

import edge.cli
from edge.cli import init
from tests.e2e.test_ca import ca
from tests.e2e.thief import Thief
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import (
    EDGE_YAML,
    Gateway,
    Variant,
    eventually,
    issue_while_serving,
    knock,
    make,
    records,
    requests_in_log,
    routes,
    serving,
)

SERVICES_DOOR = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n'
DOORS = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n  enrol: {bind: "127.0.0.1:0"}\n'


@dataclass(frozen=True)
class Told:
    """What an operator carries from one machine to the other."""

    url: str
    token: str
    fingerprint: str

    def join(self, directory: Path) -> int:
        """→ exit code."""
        arguments = ["init", str(directory), "--join", self.url, "--fingerprint", self.fingerprint]
        os.environ["EDGE_TOKEN"] = self.token
        try:
            return edge.cli.run([*arguments, "--store", "embedded", "--bind", "127.0.0.1:0"])
        finally:
            del os.environ["EDGE_TOKEN"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """The gateway with the CA, and a service behind both."""
    variant = Variant(edge=EDGE_YAML.replace("listeners:\n", DOORS))
    directory = make(tmp_path_factory.mktemp("first") / "edge", variant)
    service = Upstream(directory / "orders")
    (directory / "policies" / "routes.yaml").write_text(routes("orders", port=service.port))
    with serving(directory) as gateway:
        yield gateway, service
    service.close()


@pytest.fixture
def a(first: tuple[Gateway, Upstream]) -> Gateway:
    return first[0]


def invited(gateway: Gateway, name: str, role: str = "gateway") -> Told:
    made = ca(gateway.directory, "token", name, "--role", role, "--json")
    told = json.loads(made.stdout)
    return Told(f"https://localhost:{gateway.ports['enrol']}", told["token"], told["root_sha256"])


def home_of(gateway: Gateway, told: Told, directory: Path) -> Path:
    """Joined, with the same policies."""
    shutil.copytree(gateway.directory / "policies", directory / "policies")
    assert told.join(directory) == 0
    text = (directory / "edge.yaml").read_text().replace('"127.0.0.1:9901"', '"127.0.0.1:0"')
    (directory / "edge.yaml").write_text(text.partition("issuers:")[0] + "audit:" + text.partition("audit:")[2])
    return directory


def leaf(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates((directory / "state" / "identity" / name / "chain.pem").read_bytes())[0]


def vouched(gateway: Gateway, identity: Path, tag: str = "") -> tuple[int, bytes, str]:
    """What a sidecar is answered when it asks whom to trust: status, document, tag."""
    with closing(http.client.HTTPConnection("edge-b.internal")) as connection:
        connection.sock = knock(gateway, identity, "edge-b")
        connection.request("GET", "/v1/authority/bundle", headers={"If-None-Match": tag} if tag else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("ETag", "")


def test_a_gateway_joins_serves_and_is_renewed_and_told_over_the_network(
    a: Gateway, first: tuple[Gateway, Upstream], tmp_path: Path
) -> None:
    service = first[1]
    told = invited(a, "edge-b")
    home = home_of(a, told, tmp_path / "b")
    assert not (home / "state" / "ca").exists()
    names = leaf(home, "gateway").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["spiffe://mesh.internal/gw/edge-b", "edge-b.internal"]
    assert told.join(tmp_path / "again") == 3  # it is spent
    assert not (tmp_path / "again").exists()
    (home / "edge.yaml").write_text((home / "edge.yaml").read_text().replace("listeners:\n", SERVICES_DOOR))
    identity, word = a.directory / "orders", a.directory / "state" / "status" / "trusted.json"
    with serving(home) as b:
        assert "edge-follower" in b.children()
        assert b.get("/orders/7") == (200, "ok")
        proofs = [(each / "state" / "status" / "issued") for each in (a.directory, home)]
        assert {each.name for each in proofs[0].iterdir()} == {each.name for each in proofs[1].iterdir()}
        assert (home / "state" / "status" / "issuance-log.json").exists()
        assert "spiffe://mesh.internal/gw/edge-b" in service.callers
        # The authority's own word on its bundle is handed on; that somebody has it is to be said where the authority is.
        eventually(lambda: vouched(b, identity)[:2] == (200, word.read_bytes()), 10)
        _, said, tag = vouched(b, identity)
        assert vouched(b, identity, tag)[0] == 503
        # Certificates of new issuers: both of them, without a word to the machine of b.
        before = {name: leaf(home, name) for name in ("gateway", "public")}
        ca(a.directory, "rotate", "intermediate")
        eventually(lambda: all(leaf(home, name).issuer != old.issuer for name, old in before.items()), 30)
        assert b.get("/orders/7") == (200, "ok")
        eventually(lambda: said != vouched(b, identity)[1] == word.read_bytes(), 10)
        # What is revoked there is cut here.
        eventually(lambda: service.open_connections > 0, 10)
        assert ca(a.directory, "revoke", "orders").returncode == 0
        eventually(lambda: b.get("/orders/7") == (502, "upstream-identity"), 10)
        eventually(lambda: service.open_connections == 0, 10)
        # The gateway itself, too: it is not told any more, and is let in nowhere.
        assert ca(a.directory, "revoke", "edge-b", "--role", "gateway").returncode == 0
        b.line("the authority is not heard")
        assert b.stop() == 0
    records(home)


def test_a_gateway_that_joined_knows_what_was_handed_out_a_moment_ago_and_nothing_else(
    a: Gateway, first: tuple[Gateway, Upstream], tmp_path: Path
) -> None:
    service = first[1]

    def show(identity: Path) -> None:
        service.stop()
        service.clear()
        service.present(identity)
        service.start()

    home = home_of(a, invited(a, "edge-a"), tmp_path / "b")
    with serving(home) as b:
        issue_while_serving(a.directory, "orders")
        certificate = x509.load_pem_x509_certificates((a.directory / "orders" / "chain.pem").read_bytes())[0]
        proof = home / "state" / "status" / "issued" / certificate.fingerprint(SHA256()).hex()
        eventually(proof.exists, 10)  # on its way; a dial waits for it a little while
        show(a.directory / "orders")
        assert b.get("/orders/7") == (200, "ok")
        thief = Thief(a.directory / "state" / "ca")
        stolen = shutil.copytree(a.directory / "orders", tmp_path / "stolen")
        pair = thief.chain(thief.leaf())
        (stolen / "chain.pem").write_bytes(pair.chain)
        (stolen / "key.pem").write_bytes(pair.key_pem)
        show(stolen)
        assert b.get("/orders/7") == (502, "upstream-identity")
        assert service.seen == b""
        eventually(lambda: requests_in_log(home)[-1].get("rule.id") == "not-in-issuance-record", 10)
        show(a.directory / "orders")
        assert b.get("/orders/7") == (200, "ok")
        assert b.stop() == 0


def test_who_joins_pins_the_root_and_nothing_is_written_when_it_is_another(a: Gateway, tmp_path: Path) -> None:
    told = invited(a, "edge-c")
    mistyped = Told(told.url, told.token, "00" * 32)
    assert mistyped.join(tmp_path / "c") == 4
    elsewhere = Told(f"https://localhost:{a.ports['services']}", told.token, told.fingerprint)
    assert elsewhere.join(tmp_path / "c") == 4  # that listener wants a certificate
    assert not (tmp_path / "c").exists()
    assert told.join(tmp_path / "c") == 0  # the token was shown to nobody


def test_a_token_of_another_role_makes_no_gateway(a: Gateway, tmp_path: Path) -> None:
    assert invited(a, "alice", "operator").join(tmp_path / "c") == 1
    assert (
        Told(invited(a, "edge-d").url, "edge-enrol-guess", invited(a, "edge-d").fingerprint).join(tmp_path / "c") == 3
    )
    assert not (tmp_path / "c").exists()


def test_a_gateway_with_a_ca_spends_no_token_on_joining(a: Gateway, tmp_path: Path) -> None:
    init.command(tmp_path / "c")
    told = invited(a, "edge-e")
    assert told.join(tmp_path / "c") == 1
    assert told.join(tmp_path / "d") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--join", "https://localhost:1"],
        ["--join", "https://localhost:1", "--token", "t"],
        ["--join", "material", "--token", "t"],
    ],
)
def test_what_belongs_together_is_asked_for_together(tmp_path: Path, arguments: list[str]) -> None:
    assert edge.cli.run(["init", str(tmp_path / "c"), *arguments]) == 2
    assert not (tmp_path / "c").exists()
