"""What lies outside the walls of `authn`: key sets held in memory, and an issuer's web server with canned answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trustme

from edge.authn import keys
from edge.authn.issuer import IssuerSettings
from edge.authn.keys import KeySet
from edge.authn.method import Materials
from edge.model.decision import Need
from edge.model.http import Request
from edge.model.identity import Peer
from edge.model.route import PathPattern, Route, Upstream, Wildcard
from examples.issuer.minting import Minter, key_set_document, signing_key

ISSUER = "https://idp.example.com/"
AUDIENCE = "https://api.example.com"
PEER = Peer(ip="192.0.2.1", port=40000, prefix="192.0.2.1", sni=None, tls_version="TLSv1.3", tls_cipher="AES")

KEY = signing_key()
MINTER = Minter(KEY, ISSUER, AUDIENCE)


def issuer(name: str = ISSUER, **changes: object) -> IssuerSettings:
    """Settings of an issuer; `changes` replace fields."""
    members: dict[str, object] = {"issuer": name, "audience": (AUDIENCE,), "algorithms": ("ES256",)} | changes
    return IssuerSettings(**members)  # type: ignore[arg-type]


def key_set(document: bytes | None = None, algorithms: Iterable[str] = ("ES256",)) -> KeySet:
    """A key set in force for ever, by default with `KEY`."""
    raw = key_set_document(KEY) if document is None else document
    return keys.parse(raw, algorithms=algorithms, valid_until_ns=keys.NEVER_NS)


class KeySourceInMemory:
    """Key sets as they would have been fetched. `arriving` are those that the next fetch brings."""

    def __init__(self, sets: dict[str, KeySet] | None = None, arriving: dict[str, KeySet] | None = None) -> None:
        self.sets = {ISSUER: key_set()} if sets is None else sets
        self.arriving = arriving or {}
        self.fetches = 0

    def get(self, issuer: str) -> KeySet | None:
        return self.sets.get(issuer)

    def need(self, issuer: str, now_ns: int) -> Need | None:
        if issuer not in self.arriving:
            return None

        async def fetch() -> None:
            self.fetches += 1
            self.sets[issuer] = self.arriving.pop(issuer)

        return Need(f"key-set {issuer}", fetch)


def materials(source: KeySourceInMemory | None = None, *issuers: IssuerSettings) -> Materials:
    """What methods are built from: one issuer and its keys, unless said otherwise."""
    return Materials(issuers or (issuer(),), source or KeySourceInMemory())


def request(raw_authorization: bytes | str | None, raw_query: bytes = b"") -> Request:
    """A request with an `Authorization` value."""
    if isinstance(raw_authorization, str):
        raw_authorization = raw_authorization.encode()
    return Request(
        method="GET",
        path="/orders/7",
        raw_query=raw_query,
        has_query=bool(raw_query),
        host="localhost",
        authority="localhost",
        fields=(),
        raw_authorization=raw_authorization,
        content_length=None,
        chunked=False,
    )


def bearer(token: str) -> Request:
    """A request with a bearer token."""
    return request(f"Bearer {token}")


def route(*auth: str) -> Route:
    """A route that wants these methods."""
    return Route(
        name="orders",
        pattern=PathPattern("/orders/**", ("orders", Wildcard.REST)),
        hosts=("localhost",),
        methods=("GET",),
        upstream=Upstream("orders", "spiffe://mesh.internal/svc/orders"),
        auth=auth,
        public_reason=None if auth else "a shop window",
    )


@dataclass(slots=True)
class Answer:
    """One canned HTTP answer."""

    body: bytes = b""
    status: str = "200 OK"
    fields: tuple[str, ...] = ()
    has_length: bool = True

    def render(self) -> bytes:
        length = (f"Content-Length: {len(self.body)}",) if self.has_length else ()
        head = "\r\n".join((f"HTTP/1.1 {self.status}", "Connection: close", *length, *self.fields))
        return head.encode() + b"\r\n\r\n" + self.body


@dataclass(slots=True)
class IssuerOnLoopback:
    """An issuer's web server over TLS (or not), answering from a table and counting."""

    url: str = ""
    ca_pem: bytes = b""
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """When set, answers wait for it."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.heads.append(head)
            self.seen.append(path)
            if self.gate is not None:
                await self.gate.wait()
            writer.write(self.answers.get(path, Answer(status="404 Not Found")).render())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway hung up, as some tests want it to
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass


_AUTHORITY = trustme.CA()


@asynccontextmanager
async def issuer_on_loopback(*, name: str = "127.0.0.1", scheme: str = "https") -> AsyncIterator[IssuerOnLoopback]:
    """The server, with a certificate for `name`."""
    context = None
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _AUTHORITY.issue_cert(name).configure_cert(context)
    simulated = IssuerOnLoopback(ca_pem=_AUTHORITY.cert_pem.bytes())
    server = await asyncio.start_server(simulated.handle, "127.0.0.1", 0, ssl=context)
    simulated.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield simulated
    finally:
        server.close()
        await server.wait_closed()
