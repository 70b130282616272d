"""The application of the control plane alone, asked as the line would call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from edge.control.app import create_app
from edge.control.inside import Inside
from edge.model.http import RawField
from edge.model.identity import Peer


async def silence() -> AsyncIterator[tuple[bytes, bytes]]:
    """Of an authority that was never heard."""
    said: list[tuple[bytes, bytes]] = []
    for each in said:
        yield each


def inside(bundle: bytes = b"", spiffe_bundle: bytes = b"") -> Inside:
    return Inside(
        status=lambda: {"bundle_hash": "h"},
        routes=lambda: [{"name": "orders"}],
        metrics=lambda: b"x 1\n",
        bundle=lambda: bundle,
        words=silence,
        issued=lambda known: (b"", {}),
        spiffe_bundle=lambda: spiffe_bundle,
    )


def asked(
    listener: str,
    within: Inside,
    *,
    path: str,
    method: str = "GET",
    headers: Sequence[RawField] = (),
    body: bytes = b"",
    peer: Peer | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """(status, fields, body) of its answer."""
    events: list[dict[str, Any]] = []

    async def scene() -> None:
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if pending:
                return pending.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(event: Any) -> None:
            events.append(event)

        scope: Any = {
            **{"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""},
            **{"headers": headers, "http_version": "1.1", "scheme": "https", "root_path": "", "extensions": {}},
            **({} if peer is None else {"edge.peer": peer}),
        }
        await asyncio.wait_for(create_app(listener, within).asgi_app(scope, receive, send), 5)  # type: ignore[arg-type]

    asyncio.run(scene())
    fields = {name.decode(): value.decode() for name, value in events[0]["headers"]}
    return events[0]["status"], fields, b"".join(event["body"] for event in events[1:])
