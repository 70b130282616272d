"""The Quart application of the control plane: what an operator may read about a running gateway, as JSON.

It is an upstream (`forward/asgi.py`), so whoever gets here was admitted by the line. It changes nothing: reload, revoke and
the rest go over the control socket, where the kernel says who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from quart import Quart, Response, jsonify

Facts = Mapping[str, object]


def create_app(status: Callable[[], Facts], routes: Callable[[], list[Facts]], metrics: Callable[[], bytes]) -> Quart:
    """`status`, `routes` and `metrics` are asked at each request, so an answer is never older than a reload."""
    app = Quart("edge.control")

    @app.get("/v1/status")
    async def show_status() -> Response:
        return jsonify(dict(status()))

    @app.get("/v1/routes")
    async def show_routes() -> Response:
        return jsonify({"routes": [dict(route) for route in routes()]})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        # In a thread: 100 series take 15 ms to print, and requests go on meanwhile.
        return Response(await asyncio.to_thread(metrics), content_type="text/plain; version=0.0.4; charset=utf-8")

    return app
