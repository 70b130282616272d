"""What an operator may read about a running gateway. It changes nothing: reload, revoke and the rest go over the control
socket, where the kernel says who asks."""

from __future__ import annotations

import asyncio

from quart import Response, jsonify

from edge.control.inside import Inside


async def show_status(inside: Inside) -> Response:
    return jsonify(dict(inside.status()))


async def show_routes(inside: Inside) -> Response:
    return jsonify({"routes": [dict(route) for route in inside.routes()]})


async def show_services(inside: Inside) -> Response:
    return jsonify(dict(inside.services()))


async def show_metrics(inside: Inside) -> Response:
    # In a thread: 100 series take 15 ms to print, and requests go on meanwhile.
    return Response(await asyncio.to_thread(inside.metrics), content_type="text/plain; version=0.0.4; charset=utf-8")
