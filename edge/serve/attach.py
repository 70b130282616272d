"""`edge attach`: a sidecar that gives a plain service on this machine a front of zero trust. One process, one loop.

Life: find or obtain the certificate → listen → say ready → register → renew, each in its time → leave → drain → exit 0.

It is the gateway's own front and line (`attach_line`); here is what keeps them running: the certificate of today, the
listener that shows it, the lease, and the end. A new certificate or bundle is a new generation, as after a reload: handshakes
from then on are made with it, requests from then on decided by it, and connections that are open stay.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from edge.errors import UnsafeState
from edge.forward.io_plain import PlainPool
from edge.front import SWEEP_S, Deadlines, Doorkeeper, Front, Gate, Http1, Proof, revoke
from edge.front.heads import KnownHeads
from edge.pipeline import Gateway
from edge.serve import attach_identity, attach_line, heap
from edge.serve.attach_identity import Held
from edge.serve.attach_lease import Lease
from edge.serve.attach_log import AttachLog
from edge.serve.attach_revoked import AttachRevoked
from edge.serve.attach_settings import AttachSettings
from edge.serve.gateway_call import CallFailed, GatewayCall, GatewayCalls, Impostor
from edge.serve.report import Report
from edge.serve.sockets import address_text, borrow
from edge.timers import Timers
from pki import enrolled
from pki.errors import IssueRefused, PkiError, StatusRejected

LOOK_S = 1.0
"""From one look at the files to the next."""
BUNDLE_S = 60.0
"""From one question for the bundle to the next, where the gateway does not say before that there is another."""
_BUNDLE_AGAIN_S = 2.0
_TIDY_S = 1.0
_ENROL_AGAIN_S = 2.0
_RENEW_AGAIN_S = 5.0
_RENEW_AGAIN_MAX_S = 600.0


def run(settings: AttachSettings, report: Report) -> int:
    """In the foreground, until SIGTERM or SIGINT; → exit code.

    Raises: UnsafeState, PkiError, CallFailed; nothing was served.
    """
    heap.keep_heap()
    report.adopt_logging()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(settings, report))


async def _main(settings: AttachSettings, report: Report) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.set_exception_handler(lambda _, context: _unexpected(report, context))
    held = attach_identity.find(settings, datetime.now(UTC)) or await _enrolled(settings, report, stop)
    if held is None:
        return 0
    attached = Attached(settings, held, report)
    attached.open()
    heap.settle()
    await stop.wait()
    if not await attached.close():
        report.warning("requests were cut at the end of the drain")
    return 0


async def _enrolled(settings: AttachSettings, report: Report, stop: asyncio.Event) -> Held | None:
    """The first certificate. A gateway that cannot be reached yet is asked again; None: told to stop meanwhile.

    Raises: UnsafeState, PkiError, Impostor.
    """
    told = ""
    while not stop.is_set():
        try:
            held = await attach_identity.enrol(settings, datetime.now(UTC))
        except Impostor:
            raise
        except CallFailed as exc:
            if str(exc) != told:
                told = str(exc)
                report.warning("not enrolled; trying again", cause=told)
            try:
                async with asyncio.timeout(_ENROL_AGAIN_S):
                    await stop.wait()
            except TimeoutError:
                pass
            continue
        report.info("enrolled", text=f"{held.spiffe_id} until {held.not_after:%Y-%m-%dT%H:%M:%SZ}")
        return held
    return None


class Attached:
    """Owner of everything the sidecar has open."""

    def __init__(self, settings: AttachSettings, held: Held, report: Report) -> None:
        """Raises: UnsafeState: the address cannot be had, or the files do not say who a gateway is."""
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._report = report
        self._log = AttachLog(report)
        self._pool = PlainPool(loop, settings.target)
        self._shared = attach_line.open_shared(loop, self._pool, self._log, report)
        self._held = held
        self._revoked = AttachRevoked()
        gateway, self._proof = self._build(held)
        deadlines = replace(Deadlines(), drain_s=settings.drain_s)
        # Each head of a gateway has an id of its own, so none comes twice.
        self._front = Front(gateway, self._shared, deadlines, Http1, KnownHeads(at_most=0))
        self._call = self._calling(gateway)
        self._gate: Gate | None = None
        self._sock = _bind(settings.listen)
        self._timers = Timers(self._timer_failed)
        self._lease: Lease | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stamp = self._files()
        self._bundle_at_s = self._renew_at_s = 0.0
        self._renewals_failed = 0
        self._told = self._bundle_told = ""
        self._bundle_tag = b""  # of the bundle in force, as the gateway names it
        self._answered_tag = b""  # of what it said last of its bundle, whether it was taken or not
        self._wants_renewal = False
        """The bundle has changed: perhaps the certificate's issuer is on its way out."""

    def _build(self, held: Held) -> tuple[Gateway, Proof]:
        attach_identity.require_gateway_role(held)
        settings, known = self._settings, self._revoked.known
        return attach_line.build(held, settings.gateways, settings.target, settings.assertion, known, self._shared)

    def _calling(self, gateway: Gateway) -> GatewayCalls | None:
        places, trust = self._settings.services, gateway.trust
        calls = [GatewayCall(place, trust.context, lambda tls: trust.verify(tls, "")) for place in places]
        return GatewayCalls(calls) if calls else None

    def open(self) -> None:
        """Listen, and go on by itself."""
        self._listen(self._proof)
        every = self._timers.every
        every(SWEEP_S, "deadlines", self._front.sweep)
        every(_TIDY_S, "idle connections", self._pool.sweep)
        every(_TIDY_S, "refusals", lambda: self._log.flush(time.time_ns()))
        every(LOOK_S, "certificate", self._look)
        self._report.ready({"attach": address_text(self._sock)})
        wish, port = self._settings.registering, self._sock.getsockname()[1]
        if wish is not None and self._call is not None:
            self._lease = Lease(self._settings.service, port, wish, self._calls, self._report)
            self._keeping = asyncio.get_running_loop().create_task(self._lease.keep(), name="lease")

    def _calls(self) -> GatewayCalls:
        assert self._call is not None
        return self._call

    def _listen(self, proof: Proof) -> None:
        """With a fresh context on the same queue, so nothing that waits there is reset."""
        before = self._gate
        self._gate = Gate(self._front, borrow(self._sock), proof.context, Doorkeeper(self._front, proof))
        if before is not None:
            before.close()

    # -- the certificate ------------------------------------------------------------------------

    def _adopt(self, held: Held) -> None:
        gateway, self._proof = self._build(held)
        self._held = held
        self._front.gateway = gateway
        self._listen(self._proof)
        before, self._call = self._call, self._calling(gateway)
        if before is not None:
            before.close()
        if self._lease is not None:
            self._lease.renewed()
        self._report.info("certificate in force", text=f"until {held.not_after:%Y-%m-%dT%H:%M:%SZ}")

    async def _look(self) -> None:
        """What has changed on disk; what the gateway says of the bundle; what is due."""
        now = datetime.now(UTC)
        stamp = self._files()
        if stamp != self._stamp:
            self._stamp = stamp
            found = attach_identity.find(self._settings, now)
            if found is not None and (found.chain, found.bundle) != (self._held.chain, self._held.bundle):
                self._adopt(found)
        if self._call is None:
            return
        await self._hear_of_revocation(self._call)
        now_s = time.monotonic()
        if now_s >= self._bundle_at_s or self._revoked.bundle_tag not in (b"", self._answered_tag):
            await self._ask_for_bundle(self._call, now)
        if now_s >= self._renew_at_s and (self._wants_renewal or now >= self._held.renew_after):
            await self._renew(self._call, now)

    async def _hear_of_revocation(self, call: GatewayCalls) -> None:
        try:
            if await self._revoked.look(call, self._held):
                listed = self._revoked.known.listed
                cut = revoke(self._front, listed)
                self._report.info("revocation set", number=self._revoked.known.number, entries=len(listed), cut=cut)
        except (CallFailed, PkiError) as exc:
            if str(exc) != self._told:
                self._told = str(exc)
                self._report.warning("what is revoked was not heard; trying again", cause=self._told)
        else:
            self._told = ""

    async def _ask_for_bundle(self, call: GatewayCalls, now: datetime) -> None:
        self._answered_tag = self._revoked.bundle_tag
        try:
            found = await attach_identity.next_bundle(call, self._held, self._bundle_tag, now)
        except StatusRejected as exc:  # whoever stands at that gateway: what was trusted before goes on being trusted
            tell = self._report.warning if exc.rule == "rollback" else self._report.error  # the one may only be late
            tell("a bundle was refused, the one before stays in force", cause=str(exc))
            found = None
        except CallFailed as exc:
            self._bundle_at_s = time.monotonic() + _BUNDLE_AGAIN_S
            if str(exc) != self._bundle_told:
                self._bundle_told = str(exc)
                self._report.warning("bundle not heard; trying again", cause=self._bundle_told)
            return
        self._bundle_told = ""
        self._revoked.hurry()
        if found is None:
            self._bundle_at_s = time.monotonic() + BUNDLE_S
            return
        held, self._bundle_tag = found
        self._bundle_at_s = 0.0  # asked again at once, by its tag: so a rotation hears that it is in force here
        if held.trusted != self._held.trusted:
            attach_identity.require_gateway_role(held)
            is_same = not self._held.trusted and enrolled.is_same_bundle(held.bundle, self._held.bundle)
            self._write(held)
            if not is_same:  # else it is the first of all, and only its number is new
                self._adopt(held)
                # With each stage of a rotation it may be another who signs.
                self._wants_renewal, self._renew_at_s = True, 0.0

    async def _renew(self, call: GatewayCalls, now: datetime) -> None:
        is_due = now >= self._held.renew_after
        try:
            held = await attach_identity.renew(self._settings, self._held, call, now)
        except (CallFailed, PkiError) as exc:
            if isinstance(exc, IssueRefused) and exc.rule == "not-due" and not is_due:
                self._wants_renewal = False  # its issuer is still the one that signs
                return
            self._renewals_failed += 1
            wait_s = min(_RENEW_AGAIN_S * 2 ** min(self._renewals_failed - 1, 8), _RENEW_AGAIN_MAX_S)
            self._renew_at_s = time.monotonic() + wait_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads, no secret
            self._report.warning("certificate not renewed; trying again", cause=str(exc))
            return
        self._wants_renewal, self._renewals_failed = False, 0
        self._adopt(held)
        self._stamp = self._files()

    def _write(self, held: Held) -> None:
        attach_identity.write(self._settings.state, held)
        self._stamp = self._files()
        self._held = held

    def _files(self) -> tuple[tuple[int, int] | None, ...]:
        places = (self._settings.state / "identity", self._settings.identity)
        return tuple(_stamp(place / "chain.pem") if place is not None else None for place in places)

    # -- the end --------------------------------------------------------------------------------

    async def close(self) -> bool:
        """Leave, finish what is in flight, close everything; True when nothing had to be cut."""
        drain_s = 0.0
        if self._lease is not None and self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            drain_s = await self._lease.leave()
        self._front.begin_retire()  # until gateways have heard of it, they are answered, and told to come no more
        await asyncio.sleep(drain_s)
        if self._gate is not None:
            self._gate.close()
        self._sock.close()
        self._front.begin_drain()
        is_clean = await self._front.drained(self._settings.drain_s)
        await self._timers.close()
        if self._call is not None:
            self._call.close()
        for task in list(self._shared.tasks):
            task.cancel()
        await asyncio.gather(*self._shared.tasks, return_exceptions=True)
        self._pool.close()
        self._report.info("drained", count=self._log.served)
        return is_clean

    def _timer_failed(self, name: str, exc: Exception) -> None:
        self._report.error("periodic work failed; trying again", work=name, cause=f"{type(exc).__name__}: {exc}")


def _bind(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family)
    except OSError as exc:
        raise UnsafeState(f"--listen: cannot bind {address[0]} port {address[1]}: {exc.strerror or exc}") from exc


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_ino


def _unexpected(report: Report, context: dict[str, Any]) -> None:
    """What no task caught. A broken connection is not news; values are not shown, since one may be a secret."""
    exc = context.get("exception")
    if exc is None:
        report.error("unexpected", cause=context.get("message"))
    elif not isinstance(exc, OSError):
        report.unexpected(exc)
