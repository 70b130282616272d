"""One cell of the matrix: a gateway with so many workers and such a store, and everything a caller meets around it.

A real issuer, a recording service over mTLS, rogues at addresses where the service is expected, and the answers of all
callers, which the log must confirm in the end. `surroundings` are made once, a `World` per cell; `cases.py` and `trouble.py`
play in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509

from edge.serve.control_socket import Answer as Told
from edge.serve.control_socket import ask as ask_control
from examples.demo import stranger
from tests.e2e.issuer import AUDIENCE, Issuer, running_issuer
from tests.e2e.limit_server import REDIS, VALKEY, Server
from tests.e2e.load import Load
from tests.e2e.rogue import Rogue, Talker, server_context
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, eventually, issue, make, records, requests_in_log, serving
from tests.wire.h2_client import Fields
from tests.wire.rig import Answer
from tests.wire.speaker import SPEAKERS, Speaker

CLIENTS = {"alice": {"secret": "alice-secret", "scopes": ["orders:read", "orders:write"]}}
SCOPES = ("orders:read", "orders:write")
QUOTA = 5
"""Of the route `counted`, per subject and minute."""
EDGE_YAML = """\
trust_domain: mesh.internal
listeners:
  public: {{bind: "127.0.0.1:0", hosts: [localhost, 127.0.0.1], http2: {shell}}}
  admin: {{bind: "127.0.0.1:0"}}
workers: {workers}
store: {store}
audit: {{paths: plain}}
issuers:
  - {{issuer: "{issuer}", audience: ["{audience}"], algorithms: [ES256], ca: issuer.pem}}
"""
POLICY = """\
@id("read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders")
when { principal.scopes.contains("orders:read") };
@id("write")
permit (principal is Edge::User, action in Edge::Action::"write", resource in Edge::Service::"orders")
when { principal.scopes.contains("orders:write") };
"""
LIMITS = f"limits:\n  - {{name: few, match: {{route: counted}}, key: [subject], rate: {QUOTA}/minute}}\n"


@dataclass(frozen=True)
class Place:
    """A cell of the matrix, but for the protocol: one gateway serves them all."""

    workers: int
    store: str
    """`embedded`, or the server that stands beside the gateway."""

    def __str__(self) -> str:
        return f"{self.workers}-{self.store}"


PLACES = tuple(Place(workers, store) for workers, store in product((1, 3), ("embedded", "valkey", "redis")))
BINARIES = {"valkey": VALKEY, "redis": REDIS}
NO_REDIS = "no redis-server on this machine; on Debian: apt-get install redis-server"


SHELLS = ("front", "hypercorn")
"""What speaks HTTP/2; HTTP/1.1 has one shell."""


def shell_of(place: Place) -> str:
    """Where a sample has to do: both, each with any number of workers, and on a machine without redis-server too."""
    return SHELLS[place.store == "valkey"]


def is_possible(place: Place) -> bool:
    """Whether this machine has its store."""
    return place.store == "embedded" or BINARIES[place.store] is not None


def protocol_of(place: Place, number: int) -> str:
    """The protocol of a case's number where a sample has to do: over the places each case meets every pair of protocol and
    workers and of protocol and store, and two cases in a row meet every cell."""
    return list(SPEAKERS)[(PLACES.index(place) + number) % 2]


def route(name: str, port: int, *, methods: str = "GET, HEAD, POST", more: str = "") -> str:
    """One entry of routes.yaml."""
    return (
        f"  - name: {name}\n    match: {{path: /{name}/**, methods: [{methods}]}}\n"
        f'    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10}}\n    auth: [jwt]\n{more}'
    )


@dataclass(frozen=True)
class Surroundings:
    """What all places share: a home that is copied, an issuer, and those who pretend to be the service."""

    template: Path
    issuer: Issuer
    rogues: dict[str, Rogue]
    other_identity: tuple[bytes, bytes]
    """Chain and key of the service billing."""


@contextmanager
def surroundings(directory: Path) -> Iterator[Surroundings]:
    """Made in about a second."""
    services = 'services:\n  orders: {may_serve: ["/**"]}\n'
    variant = Variant(policy=POLICY, services=services, limits=LIMITS, hosts=("localhost", "127.0.0.1"))
    template = make(directory / "template", variant)
    issue(template, "billing")
    (directory / "issuer").mkdir()
    billing = identity(template / "billing")
    contexts = {
        "self-made": server_context(directory, forged(template, directory)),
        "other": server_context(directory, billing),
    }
    with ExitStack() as stack:
        issuer = stack.enter_context(running_issuer(directory / "issuer", CLIENTS))
        (template / "issuer.pem").write_bytes(issuer.ca_pem)
        rogues = {"plain": Talker(0, None)} | {name: Rogue(0, context) for name, context in contexts.items()}
        for rogue in rogues.values():
            stack.callback(rogue.close)
        yield Surroundings(template, issuer, rogues, billing)


def identity(directory: Path) -> tuple[bytes, bytes]:
    return (directory / "chain.pem").read_bytes(), (directory / "key.pem").read_bytes()


def forged(template: Path, directory: Path) -> tuple[bytes, bytes]:
    """What anybody can make: an authority by the name of ours, and a certificate with the names of the service."""
    real = x509.load_pem_x509_certificate((template / "orders" / "chain.pem").read_bytes())
    names = real.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    authority = stranger.Authority(stranger.name_of(template / "state" / "ca" / "root.pem"))
    authority.issue(directory / "forged", *names)
    return identity(directory / "forged")


@dataclass
class World:
    """One gateway, and what its callers were told: the log must say the same."""

    place: Place
    around: Surroundings
    gateway: Gateway
    orders: Upstream
    store: Server | None
    """The one beside the gateway; None when it brings its own."""
    alice: str
    """A token of the issuer's token endpoint."""
    told: dict[str, int] = field(default_factory=dict)
    """Decision id → status."""
    lost: int = 0
    """Requests whose callers got no answer, as far as they know."""

    def ask(
        self,
        speaker: Speaker,
        method: str = "GET",
        path: bytes = b"/orders/7",
        *,
        token: str | None = None,
        fields: Fields = (),
        body: bytes | None = None,
        authority: bytes = b"localhost",
    ) -> Answer:
        """With alice's token unless another is given; an empty one is none."""
        return self.heard(speaker.ask(method, path, [*fields, *self.credential(token)], body=body, authority=authority))

    def credential(self, token: str | None = None) -> list[tuple[bytes, bytes]]:
        token = self.alice if token is None else token
        return [(b"authorization", b"Bearer " + token.encode())] if token else []

    def heard(self, answer: Answer) -> Answer:
        """Remember what was answered."""
        decision = answer.fields["x-request-id"]
        assert decision not in self.told
        self.told[decision] = answer.status
        return answer

    def finished(self, load: Load) -> None:
        """End a load, and remember what it heard."""
        load.end()
        self.told |= {call.decision: call.status for call in load.calls}
        self.lost += len(load.failures)

    def speaker(self, like: Speaker) -> Speaker:
        """Another connection over the same protocol; it may come to another worker."""
        return type(like)(self.gateway)

    def token(self, subject: str) -> str:
        return self.around.issuer.minter.good(subject, SCOPES)

    def leaf(self, answer: Answer) -> dict[str, object]:
        """What the log says about it."""
        return self.leaf_where(lambda leaf: leaf["event.id"] == answer.fields["x-request-id"])

    def leaf_of_the_unanswered(self, reason: str) -> dict[str, object]:
        """Of the request whose caller left: the one nobody was told about."""
        leaf = self.leaf_where(lambda leaf: leaf.get("event.reason") == reason and leaf["event.id"] not in self.told)
        status = leaf["http.response.status_code"]
        assert isinstance(status, int)
        self.told[str(leaf["event.id"])] = status
        return leaf

    def leaf_where(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        found: list[dict[str, object]] = []

        def is_there() -> bool:
            found[:] = filter(wanted, requests_in_log(self.gateway.directory))
            return bool(found)

        eventually(is_there, 15)
        return found[0]

    @property
    def routes(self) -> Path:
        return self.gateway.directory / "policies" / "routes.yaml"

    def command(self, name: str) -> Told:
        return ask_control(self.gateway.directory / "state" / "run", name, 30)

    def end(self) -> None:
        """SIGTERM with a request in flight over each protocol; then the log alone is asked."""
        self.orders.clear()
        self.orders.let.clear()
        speakers = [make(self.gateway) for make in SPEAKERS.values()]
        for speaker in speakers:
            speaker.begin("GET", b"/orders/last", self.credential())
            assert self.orders.asked.acquire(timeout=15)
        os.kill(self.gateway.process.pid, signal.SIGTERM)
        eventually(lambda: not takes_connections(self.gateway.public), 15)
        self.orders.let.set()
        for speaker in speakers:
            assert self.heard(speaker.answer()).status == 200
            speaker.close()
        assert self.gateway.ended() == 0
        assert records(self.gateway.directory) > len(self.told)
        leaves = {str(leaf["event.id"]): leaf.get("http.response.status_code") for leaf in self.leaves()}
        assert {decision: leaves.get(decision) for decision in self.told} == self.told
        assert len(leaves.keys() - self.told.keys()) <= self.lost

    def leaves(self) -> list[dict[str, object]]:
        """Each of another request."""
        return requests_in_log(self.gateway.directory)


def takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def world(place: Place, shell: str, around: Surroundings, directory: Path) -> Iterator[World]:
    """A gateway at this place. It is drained in the end, and its log held against what its callers heard."""
    home = directory / "edge"
    shutil.copytree(around.template, home)
    with ExitStack() as stack:
        orders = Upstream(home / "orders")
        stack.callback(orders.close)
        server = None
        if place.store != "embedded":
            short = stack.enter_context(TemporaryDirectory(prefix="v"))
            server = stack.enter_context(Server(short, str(BINARIES[place.store])))
        store = f"unix://{server.socket_path}" if server else "embedded"
        issuer = around.issuer
        text = EDGE_YAML.format(shell=shell, workers=place.workers, store=store, issuer=issuer.url, audience=AUDIENCE)
        (home / "edge.yaml").write_text(text)
        named = [route("orders", orders.port), route("counted", orders.port, methods="GET")]
        named.append(route("small", orders.port, more="    max_body_bytes: 1000\n"))
        named += [route(name, rogue.port) for name, rogue in around.rogues.items()]
        (home / "policies" / "routes.yaml").write_text("routes:\n" + "".join(named))
        gateway = stack.enter_context(serving(home))
        token = issuer.token("alice", "alice-secret", "+".join(SCOPES))["access_token"]
        found = World(place, around, gateway, orders, server, token)
        yield found
        found.end()
