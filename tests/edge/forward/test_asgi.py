"""The application in this process as an upstream: streamed both ways, bounded, as long as it said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from edge.errors import UpstreamError, UpstreamProtocolError
from edge.forward.asgi import HELD_BYTES, LocalCall, asgi_scope
from edge.model.decision import Admission, Permit
from edge.model.http import RawField, Request
from edge.model.identity import ANONYMOUS, Peer
from edge.model.route import PathPattern, Route, RouteMatch, Upstream

PEER = Peer("192.0.2.1", 5, "192.0.2.1", None, "TLSv1.3", "x")
App = Callable[[Any, Any, Any], Awaitable[None]]


class Listener:
    """What the exchange would hear."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_upstream_head(
        self, status: int, fields: Sequence[RawField], content_length: int | None, *, has_body: bool
    ) -> None:
        self.events.append(("head", status, content_length, has_body))
        self.fields = fields

    def on_upstream_body(self, body: bytes) -> None:
        self.events.append(("body", body))

    def on_upstream_end(self) -> None:
        self.events.append(("end",))

    def on_upstream_flush(self) -> None: ...

    def on_upstream_failed(self, error: UpstreamError) -> None:
        raise AssertionError("a call fails by raising")

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        self.events.append(("paused", is_paused))


def scope(method: str = "GET", *fields: RawField, forward_token: bool = False) -> Any:
    route = Route(
        "r", PathPattern("/a", ("a",)), (), (method,), Upstream("s", "spiffe://x/gw/y", is_local=True), (),
        public_reason="t", forward_token=forward_token,
    )  # fmt: skip
    request = Request(method, "/a", b"q=1", True, "localhost", "localhost", fields, None, None, False)
    # Forging a permit is what no other place may do; here it stands for what the line made.
    return asgi_scope(Admission(Permit(ANONYMOUS, RouteMatch(route, {"id": "7"}), ())), request, PEER, "D1")


def answering(status: int, *pieces: bytes, length: int | None = None) -> App:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [] if length is None else [(b"Content-Length", b"%d" % length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def run(app: App, method: str = "GET") -> Listener:
    async def scene() -> Listener:
        listener = Listener()
        call = LocalCall(app, listener, scope(method))
        call.send(b"", is_complete=True)
        await asyncio.wait_for(call.run(), 5)
        return listener

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("app", "method", "events"),
    [
        (answering(200, b"ab", length=2), "GET", [("head", 200, 2, True), ("body", b"ab"), ("end",)]),
        (answering(200, b"a", b"b"), "GET", [("head", 200, None, True), ("body", b"a"), ("body", b"b"), ("end",)]),
        (answering(200, length=0), "GET", [("head", 200, 0, False), ("end",)]),
        (answering(204), "GET", [("head", 204, None, False), ("end",)]),
        (answering(200, b"ab", length=2), "HEAD", [("head", 200, 2, False), ("end",)]),
    ],
)
def test_an_answer_is_told_in_order(app: App, method: str, events: list[tuple[object, ...]]) -> None:
    assert run(app, method).events == events


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """Ends without an answer."""


async def half(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})


@pytest.mark.parametrize(
    ("app", "rule"),
    [
        (nothing, "upstream-truncated"),
        (half, "upstream-truncated"),
        (answering(200, b"a", length=2), "upstream-truncated"),
        (answering(200, b"abc", length=2), "upstream-surplus"),
    ],
)
def test_an_answer_that_is_not_as_long_as_it_said_is_an_error_C1(app: App, rule: str) -> None:
    with pytest.raises(UpstreamProtocolError, match=rule):
        run(app)


def test_what_the_application_raises_comes_out() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        run(app)


def test_a_body_that_is_not_taken_pauses_the_downstream_until_it_is() -> None:
    async def scene() -> list[tuple[object, ...]]:
        listener, may_read, has_read, seen = Listener(), asyncio.Event(), asyncio.Event(), []

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await may_read.wait()
            while (event := await receive())["more_body"]:
                seen.append(len(event["body"]))
                has_read.set()
            seen.append(len(event["body"]))
            await answering(200)(None, receive, send)

        call = LocalCall(app, listener, scope("POST"))
        call.send(bytes(HELD_BYTES), is_complete=False)
        task = asyncio.ensure_future(call.run())
        await asyncio.sleep(0)
        assert listener.events == []
        call.send(b"x", is_complete=False)
        assert listener.events == [("paused", True)]
        may_read.set()
        await asyncio.wait_for(has_read.wait(), 5)
        call.send(b"last", is_complete=True)
        await asyncio.wait_for(task, 5)
        assert seen == [HELD_BYTES + 1, 4]
        return listener.events

    assert asyncio.run(scene())[:2] == [("paused", True), ("paused", False)]


def test_a_downstream_that_takes_nothing_pauses_the_application() -> None:
    async def scene() -> None:
        listener = Listener()
        call = LocalCall(answering(200, b"a", b"b"), listener, scope())
        call.send(b"", is_complete=True)
        call.pause_reading()
        task = asyncio.ensure_future(call.run())
        for _ in range(5):
            await asyncio.sleep(0)
        assert listener.events == []
        call.resume_reading()
        await asyncio.wait_for(task, 5)
        assert listener.events[-1] == ("end",)

    asyncio.run(scene())


def test_who_leaves_is_told_to_the_application_and_hears_nothing_more() -> None:
    async def scene() -> None:
        listener, heard = Listener(), []

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            heard.append((await receive())["type"])
            await answering(200, b"late")(None, receive, send)

        call = LocalCall(app, listener, scope())
        call.send(b"", is_complete=True)
        task = asyncio.ensure_future(call.run())
        for _ in range(3):
            await asyncio.sleep(0)
        assert heard == []
        call.abort()
        await asyncio.wait_for(task, 5)
        assert heard == ["http.disconnect"]
        assert listener.events == []

    asyncio.run(scene())


def test_the_application_is_told_who_is_proven_and_nothing_that_a_client_claims_B1() -> None:
    fields = (
        (b"x-auth-subject", b"root"),
        (b"authorization", b"Bearer x"),
        (b"connection", b"close"),
        (b"accept", b"*/*"),
    )
    told = scope("GET", *fields)
    assert told["headers"] == [(b"accept", b"*/*")]
    assert (told["edge.principal"], told["edge.peer"], told["edge.params"]) == (ANONYMOUS, PEER, {"id": "7"})
    assert told["extensions"]["tls"]["client_cert_chain"] == []
    assert (told["path"], told["query_string"], told["edge.decision"]) == ("/a", b"q=1", "D1")


def test_a_route_may_show_the_credential() -> None:
    told = scope("GET", (b"authorization", b"Basic x"), forward_token=True)
    assert told["headers"] == [(b"authorization", b"Basic x")]
