"""The Quart application of the control plane: what an operator may read about a running gateway, as JSON.

It is an upstream (`forward/asgi.py`), so whoever gets here was admitted by the line. It changes nothing: reload, revoke and
the rest go over the control socket, where the kernel says who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quart import Quart, Response, jsonify

Facts = Mapping[str, object]


def create_app(status: Callable[[], Facts], routes: Callable[[], list[Facts]]) -> Quart:
    """`status` and `routes` are asked at each request, so an answer is never older than a reload."""
    app = Quart("edge.control")

    @app.get("/v1/status")
    async def show_status() -> Response:
        return jsonify(dict(status()))

    @app.get("/v1/routes")
    async def show_routes() -> Response:
        return jsonify({"routes": [dict(route) for route in routes()]})

    return app
