"""The same bytes by the short way and by the long one: what was met before is read as if it had never been.

Heads of requests, header blocks and heads of answers that were met before, to the byte, are not parsed again, and what was
decided for them is not decided again. Here two fronts of this process get the same reads of the same client: one remembers
all that it met in the whole campaign, the other nothing. Behind each stands an upstream that answers by what it is asked.
What the client gets, what the upstream reads, what the log is told and who is cut must be the same, whatever the bytes:
heads that nearly are another, pipelined, cut anywhere, spoiled, from other addresses and for other names; answers that lie.
And whatever an answer says, it says of the request that it answers.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import hpack
import uvloop

from edge.accept.shed import ShedSettings
from edge.forward import answers
from edge.forward.http1 import UpstreamConnection
from edge.front import Front, Http1, Http2
from examples.issuer.minting import Minter, key_set_document, signing_key
from tests.campaigns import lanes_asks
from tests.campaigns.lanes_far import OF_ONE_TIME, UNASKED, Forgetful, Log, Service
from tests.e2e.whole_gateway import Variant, make
from tests.wire.raw_h2 import HEADERS
from tests.wire.rig import EDGE_YAML
from tests.wire.test_deadlines import SHORT, near

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
EDGE = f"""{EDGE_YAML.replace("HTTP2", "front")}trusted_proxies: [127.0.0.1]
issuers: [{{issuer: "{ISSUER}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: keys.json}}]
"""
SERVICES = 'services:\n  orders: {may_serve: ["/orders/**", "/closed/**"]}\n  held: {may_serve: ["/held/**"]}\n'
POLICY = """\
@id("anybody")
permit (principal is Edge::Anonymous, action in [Edge::Action::"read", Edge::Action::"write"],
        resource in Edge::Service::"orders");
@id("users")
permit (principal is Edge::User, action in Edge::Action::"read", resource);
@id("not-bob")
forbid (principal == Edge::User::"https://idp.example.com/#bob", action, resource);
@id("not-from-there")
forbid (principal, action, resource in Edge::Service::"orders")
when { context.conn.ip.isInRange(ip("198.51.100.0/24")) };
"""
"""What is asked of `held` is decided by the head alone; of `orders`, by the address too."""
ROUTES = """\
routes:
  - name: orders
    match: {path: /orders/**, methods: [GET, HEAD, POST, PUT]}
    upstream: {service: orders, endpoints: ["127.0.0.1:1"], timeout_s: 60}
    public: {reason: a test without tokens}
  - name: closed
    match: {path: /closed/**, methods: [GET, HEAD]}
    upstream: {service: orders, endpoints: ["127.0.0.1:1"], timeout_s: 60}
    auth: [jwt]
  - name: held
    match: {path: /held/**, methods: [GET, HEAD]}
    upstream: {service: held, endpoints: ["127.0.0.1:1"], timeout_s: 60}
    auth: [jwt]
"""
CALM = replace(SHORT, head_s=600, idle_s=600, body_s=600, write_s=600, linger_s=600)
_ADDRESSES = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
"""The first is a proxy that is trusted."""
_NAMES = (None, None, "localhost", "localhost", "localhost", "127.0.0.1")
_MAX_SHOWN = 5
_WORD = re.compile(rb"\r\n([0-9a-f]{40})")


@dataclass
class Outcome:
    """What the campaign saw."""

    connections: int = 0
    requests: int = 0
    """That an upstream read, by either way."""
    known: int = 0
    """Heads that were not parsed again."""
    disagreements: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.requests} requests forwarded, {self.known} heads met before, "
            f"{len(self.disagreements)} disagreements"
        )


class Near(asyncio.Transport):
    """The connection to the client; what the client's TLS said is its own `ssl_object`."""

    def __init__(self, ip: str, name: str | None) -> None:
        super().__init__({"peername": (ip, 1), "ssl_object": self})
        self.edge_sni = name
        self.written = b""
        self.is_read = True
        self.ended = ""

    def version(self) -> str:
        return "TLSv1.3"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """It is fed by hand."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It takes everything."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return bool(self.ended)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += b"" if self.ended else data

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "cut"


class _Nothing:
    """Remembers as much."""

    def get(self, key: object) -> None:
        return None

    def put(self, *_: object) -> None:
        """Forgotten."""


class _Counting:
    """Asks the memory, and counts what it knew."""

    def __init__(self, memory: dict[object, object], outcome: Outcome) -> None:
        self._get, self._outcome = memory.get, outcome

    def __call__(self, key: object) -> object:
        found = self._get(key)
        self._outcome.known += found is not None
        return found


@dataclass
class Way:
    """A front, and what stands behind it."""

    front: Front
    service: Service
    log: Log


def long_way(front: Front) -> Way:
    way = _way(front, Forgetful)
    way.front.heads = way.front.blocks = _Nothing()  # type: ignore[assignment]
    return way


def short_way(front: Front, outcome: Outcome) -> Way:
    way = _way(front, UpstreamConnection)
    for memory in (way.front.heads, way.front.blocks):
        memory.get = _Counting(memory.known, outcome)  # type: ignore[assignment, arg-type]
    return way


def _way(front: Front, made: Callable[..., UpstreamConnection]) -> Way:
    service, log = Service(front.shared.loop, made), Log()
    shared = replace(front.shared, pool=service, recorder=log)  # type: ignore[arg-type]
    return Way(Front(front.gateway, shared, CALM, Http1), service, log)


@dataclass
class Talk:
    """One connection: what is read of it, and how many turns of the loop lie behind each read."""

    is_http2: bool
    ip: str
    name: str | None
    reads: Sequence[bytes]
    turns: Sequence[int]
    stops_taking_at: int
    """From this read on to the last the client takes nothing."""
    leaves: bool
    """At once when it has said all."""


def draw_talk(draw: random.Random, tokens: Sequence[str]) -> Talk:
    is_http2 = draw.random() < 0.35
    reads = (lanes_asks.http2 if is_http2 else lanes_asks.http1)(draw, tokens)
    most = (0, 0, 1, 2, 5, 20) if len(reads) < 60 else (0, 1)
    stops = draw.randrange(len(reads)) if draw.random() < 0.1 else len(reads)
    turns = [draw.choice(most) for _ in reads]
    return Talk(is_http2, draw.choice(_ADDRESSES), draw.choice(_NAMES), reads, turns, stops, draw.random() < 0.1)


async def play(way: Way, talk: Talk) -> tuple[object, ...]:
    """What came of it: for the client, for the upstream, for the log, and for the connection."""
    way.service.renew()
    way.log.renew()
    way.front.shared.shed.open(talk.ip)
    near = Near(talk.ip, talk.name)
    client: Http1 | Http2
    if talk.is_http2:
        client = Http2(way.front, near)
    else:
        client = Http1(way.front)
        client.connection_made(near)
    await _say(client, near, talk)
    if not talk.leaves:
        await _until_quiet(way, near)
    client.connection_lost(None)
    await _until_quiet(way, near)
    if not talk.is_http2 and not any(map(UNASKED.search, way.service.seen)):
        words = iter(way.service.words)
        astray = [word for word in _WORD.findall(near.written) if word not in words]
        assert not astray, f"{astray} for {talk}"
    said = _frames(near.written) if talk.is_http2 else OF_ONE_TIME.sub(b"", near.written)
    return said, way.service.seen, way.log.told, near.ended


async def _say(client: Http1 | Http2, near: Near, talk: Talk) -> None:
    for at, (read, turns) in enumerate(zip(talk.reads, talk.turns, strict=True)):
        if at == talk.stops_taking_at:
            client.pause_writing()
        for _ in range(200):
            if near.is_read:
                break
            await asyncio.sleep(0)
        else:
            break
        if near.ended:
            return
        client.data_received(read)
        for _ in range(turns):
            await asyncio.sleep(0)
    if talk.stops_taking_at < len(talk.reads):
        client.resume_writing()


async def _until_quiet(way: Way, near: Near) -> None:
    quiet, before = 0, -1
    while quiet < 6:
        await asyncio.sleep(0)
        now = len(near.written) + len(way.service.seen) + len(way.log.told)
        quiet = quiet + 1 if now == before else 0
        before = now


def _frames(raw: bytes) -> list[object]:
    """What was written over HTTP/2, without what is of one time."""
    decoder = hpack.Decoder()
    said: list[object] = []
    while len(raw) >= 9:
        end = 9 + int.from_bytes(raw[:3], "big")
        kind, flags, stream, payload = raw[3], raw[4], int.from_bytes(raw[5:9], "big"), raw[9:end]
        meant: object = payload
        if kind == HEADERS:
            meant = [each for each in decoder.decode(payload, raw=True) if each[0] not in (b"date", b"x-request-id")]
        said.append((kind, flags, stream, meant))
        raw = raw[end:]
    return said


def _difference(first: object, second: object) -> str:
    """Where two readings part."""
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        for one, other in zip(first, second, strict=False):
            if one != other:
                return _difference(one, other)
        return f"{first[len(second) :]!r} ≠ {second[len(first) :]!r}"
    return f"{first!r} ≠ {second!r}"


def campaign(directory: Path, count: int, seed: int) -> Outcome:
    """`count` connections."""
    key = signing_key()
    make(directory, Variant(edge=EDGE, services=SERVICES, policy=POLICY, hosts=("localhost", "127.0.0.1")))
    (directory / "policies" / "routes.yaml").write_text(ROUTES)
    (directory / "keys.json").write_bytes(key_set_document(key))
    minter = Minter(key, ISSUER, AUDIENCE, lifetime_s=3600)
    tokens = [minter.good("ann"), minter.good("ann"), minter.good("bob"), minter.good("cyd", ["orders:read"])]
    tokens += [minter.expired("ann"), minter.forged("ann"), tokens[0][:-4] + "AAAA", "x"]
    return uvloop.run(_campaign(directory, count, seed, tokens))


async def _campaign(directory: Path, count: int, seed: int, tokens: Sequence[str]) -> Outcome:
    outcome = Outcome()
    async with near(directory, directory / "worker.ring", ShedSettings(), deadlines=CALM) as there:
        fast, slow = short_way(there.front, outcome), long_way(there.front)
        for number in range(count):
            name = f"{seed}.{number}"
            talk = draw_talk(random.Random(name), tokens)
            if number % 500 == 499:  # what is remembered is forgotten now and then, amid the answers that rest on it
                fast.front.heads.clear()
                answers._known.clear()
            first, second = await play(fast, talk), await play(slow, talk)
            outcome.connections += 1
            outcome.requests += len(fast.service.seen)
            if first != second:
                outcome.disagreements.append(f"{name}: {talk}: {_difference(first, second)}")
                if len(outcome.disagreements) >= _MAX_SHOWN:
                    break
    return outcome
