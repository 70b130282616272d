"""Registration on the services listener: docs/registration.md is its contract, `serve/registrar.py` decides.

    PUT    /v1/services/{service}/instances/{instance}    a lease, a heartbeat, a change
    DELETE                                                the instance leaves

A refusal is told by its rule and a sentence for it, because who is refused here has proven to be one of our services, and who
runs it must be able to mend it. Addresses and names of others are in the access log and not in the answer.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from quart import Response, request

from edge.control.inside import Asked, Inside
from edge.errors import NotReady
from edge.registry.admission import REFUSALS, Granted, Refused

_HEARTBEATS = 3
"""In the time of a lease: two may be lost."""


async def handle(inside: Inside, service: str, instance: str) -> Response:
    if inside.register is None:
        raise NotReady("no-registry")
    scope = request.scope
    principal, peer = scope["edge.principal"], scope["edge.peer"]  # type: ignore[typeddict-item]
    asked = Asked(service, instance, principal.subject, peer)
    if request.method == "DELETE":
        left = await inside.register.leave(asked)
        return _refused(left) if isinstance(left, Refused) else _answer(200, {"drain_s": left})
    body = await request.get_data()
    assert isinstance(body, bytes)
    outcome = await inside.register.register(asked, body)
    return _refused(outcome) if isinstance(outcome, Refused) else _granted(outcome)


def _granted(granted: Granted) -> Response:
    entry = granted.entry
    host = f"[{entry.host}]" if ":" in entry.host else entry.host
    ttl_s = granted.ttl_s
    facts = {
        "service": entry.service,
        "instance": entry.instance,
        "address": f"{host}:{entry.port}",
        "ttl_s": ttl_s,
        "expires_in_s": round(granted.expires_in_s, 3),
        "heartbeat_s": ttl_s / _HEARTBEATS,
        "routes": [
            {
                "path": route.path,
                "methods": route.methods,
                "hosts": route.hosts,
                "live": route.path not in granted.reasons,
                "reason": granted.reasons.get(route.path),
            }
            for route in entry.routes
        ],
    }
    return _answer(201 if granted.is_new else 200, facts)


def _refused(refused: Refused) -> Response:
    status, sentence = REFUSALS[refused.rule]
    problem = {
        "type": "about:blank",  # RFC 9457 §4.2.1: the status says what it is; `rule` says why
        "title": HTTPStatus(status).phrase,
        "status": status,
        "rule": refused.rule,
        "detail": sentence,
    }
    answer = _answer(status, problem, "application/problem+json")
    if refused.retry_after_s:
        answer.headers["Retry-After"] = str(refused.retry_after_s)
    return answer


def _answer(status: int, facts: object, kind: str = "application/json") -> Response:
    return Response(json.dumps(facts), status=status, content_type=kind)
