"""The place of a sidecar among the instances of its service: registered, kept alive, left in time (docs/registration.md).

A refusal is told once and asked about again: what an operator mends is found without a restart. Meanwhile the sidecar serves,
since it may also stand in a file as an endpoint.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable

import msgspec

from edge.serve.attach_settings import Registering
from edge.serve.gateway_call import Answer, CallFailed, GatewayCalls
from edge.serve.report import Report

TTL_S = 30
_AGAIN_S = 2.0
_AGAIN_MAX_S = 30.0
_LEAVE_S = 3.0
"""For the farewell: a gateway that is away does not keep us."""
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


class _Leased(msgspec.Struct, frozen=True):
    heartbeat_s: float


class _Left(msgspec.Struct, frozen=True):
    drain_s: float


class _Refused(msgspec.Struct, frozen=True):
    rule: str = ""
    detail: str = ""


class Lease:
    """Owner: the sidecar; `keep` is a task of its own. `gateway` gives the connection of today's certificate."""

    def __init__(
        self, service: str, port: int, wish: Registering, gateway: Callable[[], GatewayCalls], report: Report
    ) -> None:
        self._path = f"/v1/services/{service}/instances/{wish.instance or own_name(port)}"
        self._body = json.dumps(
            {
                "address": wish.address or f":{port}",
                "ttl_s": TTL_S,
                "weight": wish.weight,
                "health_path": wish.health_path,
                "draining": False,
                "routes": [{"path": path} for path in wish.routes],
            }
        ).encode()
        self._gateway = gateway
        self._report = report
        self._at_once = asyncio.Event()
        self._is_registered = False
        self._told = ""
        self._failures = 0

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            wait_s = await self._beat()
            try:
                async with asyncio.timeout(wait_s):
                    await self._at_once.wait()
            except TimeoutError:
                pass
            self._at_once.clear()

    def renewed(self) -> None:
        """There is a new certificate: the lease has to become its."""
        self._at_once.set()

    async def _beat(self) -> float:
        """→ seconds until the next."""
        fields = [(b"content-type", b"application/json")]
        try:
            answer = await self._gateway().ask("PUT", self._path, fields, self._body)
        except CallFailed as exc:
            return self._failed(str(exc))
        if answer.status not in (200, 201):
            return self._failed(f"status {answer.status}: {_reason(answer)}")
        try:
            leased = msgspec.json.decode(answer.body, type=_Leased)
        except msgspec.MsgspecError:
            return self._failed("the answer is not one of a registration")
        self._failures, self._told = 0, ""
        if not self._is_registered or answer.status == 201:
            self._is_registered = True
            self._report.info("registered", text=self._path)
        return min(max(leased.heartbeat_s, 1.0), TTL_S / 2)

    def _failed(self, cause: str) -> float:
        if cause != self._told:
            self._told = cause
            self._report.warning("not registered; trying again", cause=cause)
        self._failures += 1
        return min(_AGAIN_S * 2.0 ** min(self._failures - 1, 8), _AGAIN_MAX_S)

    async def leave(self) -> float:
        """Give the place up; → seconds for which requests may still come."""
        if not self._is_registered:
            return 0.0
        try:
            async with asyncio.timeout(_LEAVE_S):
                answer = await self._gateway().ask("DELETE", self._path)
                drain_s: float = msgspec.json.decode(answer.body, type=_Left).drain_s
                return min(max(drain_s, 0.0), TTL_S)
        except (TimeoutError, CallFailed, msgspec.MsgspecError) as exc:
            self._report.warning("the lease could not be given up, and ends by itself", cause=str(exc))
            return 0.0


def own_name(port: int) -> str:
    """An instance's id for this machine and port, the same after a restart."""
    host = _NOT_IN_A_NAME.sub("-", socket.gethostname().lower().partition(".")[0]).strip("-")
    return f"{host[:50].strip('-') or 'instance'}-{port}"


def _reason(answer: Answer) -> str:
    try:
        refused = msgspec.json.decode(answer.body, type=_Refused)
    except msgspec.MsgspecError:
        return answer.text
    return f"{refused.rule}: {refused.detail}" if refused.rule else refused.detail
