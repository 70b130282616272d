"""What one worker serves: listeners, front and the generation of the configuration in force.

prepare   parse and build beside what serves; nothing of it is visible
commit    swap: the front's gateway, upstream trust, the certificate of new handshakes
retire    a successor serves: no new connections, clients are told to connect anew, then drain
drain     readiness fails, listeners close, idle connections go, requests in flight finish
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import cast

from edge import assemble
from edge.accept.tls import public_context
from edge.assemble import WorkerShared
from edge.audit.io_recorder import open_recorder
from edge.config.parse import parse
from edge.config.settings import Config, PublicListener
from edge.config.sources import Sources
from edge.control.app import create_app
from edge.control.inside import Facts, Inside
from edge.dataplane import DataPlane, Health
from edge.errors import UnsafeState
from edge.forward.asgi import AsgiApp
from edge.forward.io_checks import INSTANCES_S, HealthChecks
from edge.front import SWEEP_S, Front, Gate, Http1, Http2, HypercornHttp2, Proof, revoke, take_tunnel
from edge.limit.store import StoreSettings
from edge.observe import Gauge, Observer, gauge
from edge.pipeline import Gateway
from edge.serve import sockets
from edge.serve.admin import Admin, admin_hosts
from edge.serve.alarm import UpstreamAlarm
from edge.serve.ca_client import CaClient
from edge.serve.discovery import Discovery
from edge.serve.doors import DOOR_GAUGES, Door, proofs
from edge.serve.heap import Heap
from edge.serve.instances import Instances
from edge.serve.metrics import exposition
from edge.serve.outline import digest
from edge.serve.pool import Boot
from edge.serve.revocations import LOOK_S, Anchors, Revocations
from edge.serve.run_state import unix_address
from edge.serve.store import SOCKET_NAME
from edge.timers import Timers
from pki.bundle import Bundle
from pki.io_issuance import published
from pki.io_status import STATUS, published_bundle, trusted
from pki.svid import Revoked

_KEYS_AT_START_S = 3.0
_KEYS_AT_RELOAD_S = 0.5
"""How long a new issuer's keys are awaited, so that an edit is served within 1 s; requests that need them wait longer."""
_FLUSH_S, _KEY_SETS_S, _SWEEP_POOL_S = 1.0, 5.0, 5.0
_BEAT_S, _SHOW_S, _HEAP_S = 2.0, 1.0, 0.5
RETIRE_S = 5.0
"""How long clients may go on using their connections while each answer tells them to leave."""
FINISH_S = 600.0
"""For requests that are still under way then: a download of gigabytes is not cut by a restart."""
_HANDSHAKES_S = 1.5
"""A retiring worker without connections still waits this long: a handshake may be under way."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What one reading of the files became."""

    digest: str
    config: Config
    gateway: Gateway
    control: Mapping[str, Gateway]
    """Listener → its routes to this process, under their own policies; without the public one."""
    proofs: Mapping[str, Proof]
    """What `services` and `enrol` ask of who connects."""


class Serving:
    """Owner of everything a worker has open. One event loop, no locks."""

    def __init__(self, boot: Boot, shared: WorkerShared, sources: Sources, config: Config) -> None:
        """Raises: UnsafeState when the gateway's own certificates are missing."""
        self._boot = boot
        self._shared = shared
        self._ca = CaClient(boot.ca, self._revocation_told) if boot.ca is not None else None
        self._discovery = Discovery(boot, shared, config, self._declared_changed)
        inside = Inside(
            status=self._status,
            routes=self._discovery.routes,
            metrics=self._metrics,
            bundle=lambda: self.generation.config.identity.bundle,
            words=lambda: self._revocations.words(),
            issued=lambda known: published(self.generation.config.state / STATUS, known),
            spiffe_bundle=lambda: published_bundle(self.generation.config.state / STATUS),
            trusted=lambda: trusted(self.generation.config.state / STATUS),
            services_port=sockets.port_of(boot.sockets.get("services")),
            authority=self._ca.ask if self._ca is not None else None,
            register=self._discovery.register,
            services=self._discovery.facts,
        )
        self._apps = {name: create_app(name, inside) for name in boot.sockets if name != "public"}
        # Taken before the data plane is put around them: this is what lies behind the line.
        self._applications = {name: cast(AsgiApp, app.asgi_app) for name, app in self._apps.items()}
        self.generation = self._build(sources, config, None)
        self._prepared: Generation | None = None
        self._front = front = Front(self.generation.gateway, shared, config.deadlines, Http1)
        self._streams = DataPlane(front)
        front.take_http2 = self._take_http2
        front.take_tunnel = take_tunnel
        self._server: Gate | None = None
        self._admin: Admin | None = None
        self._admin_front: Front | None = None
        self._doors = {
            name: Door(name, boot.sockets[name], self._apps[name], Front(control, shared, config.deadlines, Http1))
            for name, control in self.generation.control.items()
            if name in self.generation.proofs
        }
        self._fronts = [front, *(door.front for door in self._doors.values())]
        self._instances = Instances(shared.pool, shared.observer, boot.report)
        draw = Random().random  # noqa: S311 - spreads load
        self._checks = HealthChecks(
            shared.pool, shared.loop, shared.spawn, draw, lambda: front.gateway.trust.assertions
        )
        self._timers = Timers(self._timer_failed)
        self._fetches: set[asyncio.Task[object]] = set()  # key sets still coming; cancelled in close()
        self._is_draining = False
        self._is_retiring = False
        self._revocations = Revocations(
            shared.status, config.state / STATUS, _anchors(config), shared.recorder, boot.report, self._revoke
        )
        self._revocations.look()

    def _declared_changed(self) -> None:
        self._front.gateway = self._discovery.gateway(self.generation.gateway)

    def _revocation_told(self, _number: int) -> None:
        self._revocations.look()

    def _revoke(self, revoked: Revoked) -> int:
        """Cut what rests on it; WebSockets first, which would take the loss of their connection for an accident."""
        return sum(revoke(front, revoked) for front in self._fronts) + self._shared.pool.revoke(revoked)

    def _take_http2(self, transport: asyncio.Transport) -> object:
        """By which shell HTTP/2 is spoken is read anew for each connection, so that a reload may change it."""
        if self.generation.config.listeners.public.http2 == "hypercorn":
            return HypercornHttp2(self._front, transport, self._streams)
        return Http2(self._front, transport)

    @classmethod
    async def open(cls, boot: Boot) -> Serving:
        """Build the first generation and listen.

        Raises: ConfigError, UnsafeState, OSError; the worker cannot serve.
        """
        loop = asyncio.get_running_loop()
        config = parse(boot.sources)
        recorder = open_recorder(boot.ring, config.audit, boot.pseudonym_key, nudge=boot.nudge, loop=loop)
        embedded = StoreSettings(socket_path=unix_address(boot.run_fd, SOCKET_NAME), min_replicas=config.workers)
        observer, alarm = Observer(boot.row.memory), UpstreamAlarm(recorder, boot.report)
        shared = assemble.open_shared(
            config, recorder, config.store or embedded, loop, boot.report.unexpected, observer, alarm
        )
        serving = cls(boot, shared, boot.sources, config)
        assemble.adopt(config, serving.generation.gateway, shared, None)
        await serving._prefetch(serving.generation.gateway, _KEYS_AT_START_S)
        await shared.store.beat()
        await serving._discovery.start()
        await serving._listen()
        return serving

    def _build(self, sources: Sources, config: Config, previous: Gateway | None) -> Generation:
        """Raises: UnsafeState when the gateway's own certificates are missing."""
        if config.unissued:
            raise UnsafeState(f"no certificate yet for {', '.join(config.unissued)} under {config.state / 'identity'}")
        gateway = assemble.build(config, self._shared, previous)
        admin = config.listeners.admin
        hosts = {"admin": admin_hosts(admin.bind[0])} if admin is not None else {}
        services = {grant.service: grant.spiffe_id for grant in config.grants}
        control = {
            name: assemble.build_control(
                name, gateway, self._shared, application, hosts=hosts.get(name), services=services
            )
            for name, application in self._applications.items()
        }
        return Generation(digest(sources), config, gateway, control, proofs(config, self._shared))

    async def _listen(self) -> None:
        public = self.generation.config.listeners.public
        self._server = self._open_public(public)
        if "admin" in self._boot.sockets:
            app = self._apps["admin"]
            health = Health(is_serving=lambda: self._server is not None, failing=self._failing)
            front = Front(self.generation.control["admin"], self._shared, self._front.deadlines, Http1)
            self._admin_front = front
            plane = DataPlane(front, self._applications["admin"], health)
            app.asgi_app = plane  # type: ignore[method-assign, assignment]
            self._admin = Admin(app, sockets.borrow(self._boot.sockets["admin"]))
            self._timers.every(SWEEP_S, "admin deadlines", plane.sweep)
        for name, door in self._doors.items():
            door.open(self.generation.proofs[name])
            self._timers.every(SWEEP_S, f"{name} deadlines", door.sweep)
        self._timers.every(SWEEP_S, "deadlines", self._front.sweep)
        self._timers.every(SWEEP_S, "stream deadlines", self._streams.sweep)
        self._timers.every(SWEEP_S, "pressure", self._front.weigh)
        self._timers.every(_FLUSH_S, "summaries", self._flush)
        self._timers.every(_KEY_SETS_S, "key sets", self._renew_key_sets)
        self._timers.every(_BEAT_S, "store", self._shared.store.beat)
        self._timers.every(_SWEEP_POOL_S, "upstream connections", self._shared.pool.sweep)
        self._timers.every(_SWEEP_POOL_S, "upstreams without a certificate", self._shared.pool.probe_due)
        self._timers.every(INSTANCES_S, "instances", self._checks.turn)
        self._timers.every(LOOK_S, "revocation", self._revocations.look)
        self._discovery.follow(self._timers)
        self._timers.every(_SHOW_S, "gauges", self._show)
        self._timers.every(_HEAP_S, "heap", Heap().give_back)
        self._show()

    def _open_public(self, public: PublicListener) -> Gate:
        context = public_context(public.shown, public.alpn)
        return Gate(self._front, sockets.borrow(self._boot.sockets["public"]), context)

    async def prepare(self, sources: Sources) -> str:
        """Build a generation beside the one that serves; returns its digest. Raises: ConfigError, UnsafeState, OSError."""
        self._prepared = None
        config = parse(sources)
        candidate = self._build(sources, config, self.generation.gateway)
        public = config.listeners.public
        public_context(public.shown)  # what fails must fail now, not at commit
        await self._prefetch(candidate.gateway, _KEYS_AT_RELOAD_S)
        self._prepared = candidate
        return candidate.digest

    async def commit(self) -> str:
        """Swap; returns the digest of what serves now. From the first line on every new request sees the new one."""
        candidate, before = self._prepared, self.generation
        if candidate is None:
            return before.digest
        self._front.gateway = self._discovery.adopt(candidate.config, candidate.gateway)
        for front in self._fronts:
            front.deadlines = candidate.config.deadlines
        if self._admin_front is not None:
            self._admin_front.gateway = candidate.control["admin"]
        for name, door in self._doors.items():
            door.adopt(candidate.control[name], candidate.proofs[name])
        assemble.adopt(candidate.config, candidate.gateway, self._shared, before.gateway)
        self._revocations.trust(_anchors(candidate.config))
        self.generation, self._prepared = candidate, None
        public, old = candidate.config.listeners.public, before.config.listeners.public
        if self._server is not None and (public.shown, public.alpn) != (old.shown, old.alpn):
            # A fresh context on the same queue: the supervisor keeps the socket, so nothing that waits there is reset.
            server, self._server = self._server, self._open_public(public)
            server.close()
        self._show()
        return candidate.digest

    def abort(self) -> None:
        """Forget what was prepared."""
        self._prepared = None

    async def retire(self) -> None:
        """Ends when the clients have left; then `drain`. Reloads go on meanwhile; long answers have the time they need."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._is_retiring = True
        self._revocations.close()
        for door in self._doors.values():
            door.close()
        for front in self._fronts:
            front.begin_retire()
        self._show()
        await asyncio.sleep(_HANDSHAKES_S)
        if not await self._emptied(RETIRE_S - _HANDSHAKES_S):
            for front in self._fronts:
                front.begin_drain()
            await self._emptied(FINISH_S)

    async def _emptied(self, timeout_s: float) -> bool:
        return all(await asyncio.gather(*(front.emptied(timeout_s) for front in self._fronts)))

    async def drain(self) -> bool:
        """Finish what is in flight, at most `drain_s`; True when nothing had to be cut. Then close everything."""
        self._is_draining = True
        self._revocations.close()  # else who listens would be waited for
        if self._server is not None:
            self._server.close()
        for door in self._doors.values():
            door.close()
        for name in ("public", *self._doors):
            self._boot.sockets[name].close()  # the inherited one; the supervisor closes its own
        for front in self._fronts:
            front.begin_drain()
        clean = all(await asyncio.gather(*(front.drained(front.deadlines.drain_s) for front in self._fronts)))
        await self._timers.close()
        self._shared.recorder.flush_summaries(time.time_ns() + 1_000_000_000)  # also the second that is not over
        if self._admin is not None:
            await self._admin.close()
        if self._ca is not None:
            self._ca.close()
        for fetch in self._fetches:
            fetch.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)
        await assemble.close(self._shared, self.generation.gateway)
        return clean

    @property
    def admin_task(self) -> asyncio.Task[None] | None:
        """Ends only when the admin listener fails."""
        return self._admin.task if self._admin is not None else None

    async def _prefetch(self, gateway: Gateway, within_s: float) -> None:
        """Await the key sets a while; what is still under way goes on beside us."""
        fetch: asyncio.Task[object] = asyncio.get_running_loop().create_task(self._tolerant_prefetch(gateway))
        self._fetches.add(fetch)
        fetch.add_done_callback(self._fetches.discard)
        await asyncio.wait({fetch}, timeout=within_s)

    async def _tolerant_prefetch(self, gateway: Gateway) -> None:
        for failure in await assemble.prepare(gateway):
            self._boot.report.warning("an issuer's keys are not there yet; trying again", cause=str(failure))

    async def _renew_key_sets(self) -> None:
        for failure in await self.generation.gateway.key_sets.refresh_due(time.time_ns()):
            self._boot.report.warning("an issuer's keys could not be renewed; trying again", cause=str(failure))

    def _flush(self) -> None:
        self._shared.recorder.flush_summaries(time.time_ns())

    def _show(self) -> None:
        """Say on the board how this worker is."""
        shared, ring, show = self._shared, self._boot.ring, self._shared.observer.show
        used = resource.getrusage(resource.RUSAGE_SELF)
        show(Gauge.CONNECTIONS, len(self._front.connections))
        for name, which in DOOR_GAUGES.items():
            show(which, len(self._doors[name].front.connections) if name in self._doors else 0)
        self._instances.show()
        show(Gauge.RING_FREE, ring.free_slots)
        show(Gauge.RING_SLOTS, ring.slots)
        show(Gauge.RECORDABLE, shared.recorder.is_recordable())
        show(Gauge.STORE_UP, shared.store.healthy)
        show(Gauge.REVOCATION_KNOWN, self._revocations.is_known)
        show(Gauge.CONFIG, int(self.generation.config.bundle_hash[:16], 16))
        show(Gauge.CPU_US, round((used.ru_utime + used.ru_stime) * 1_000_000))
        show(Gauge.RSS_BYTES, resident_bytes())
        show(Gauge.RETIRING, self._is_retiring)
        show(Gauge.UPDATED_NS, time.monotonic_ns())

    def _timer_failed(self, name: str, exc: Exception) -> None:
        self._shared.observer.add(Gauge.TIMER_FAILURES)
        self._boot.report.error("periodic work failed; trying again", work=name, cause=f"{type(exc).__name__}: {exc}")

    def _failing(self) -> list[str]:
        failing = []
        if self._is_draining and not self._is_retiring:  # then a successor serves
            failing.append("draining")
        if not self._shared.recorder.is_recordable():
            failing.append("access-log")
        if self.generation.config.limits and not self._shared.store.healthy:
            failing.append("store")
        return failing + self._failing_elsewhere(failing)

    def _failing_elsewhere(self, known: list[str]) -> list[str]:
        """What another worker cannot do: a client may meet any of them."""
        others = [row.memory for row in self._boot.board.live() if row.worker != self._boot.index]
        failing = {
            "access-log": not all(gauge(row, Gauge.RECORDABLE) for row in others),
            "store": bool(self.generation.config.limits) and not all(gauge(row, Gauge.STORE_UP) for row in others),
        }
        return [name for name, fails in failing.items() if fails and name not in known]

    def _metrics(self) -> bytes:
        certificates = self.generation.config.certificates
        return exposition(self._boot.board, [(each.name, each.not_after_s) for each in certificates])

    def _status(self) -> Facts:
        self._show()
        live = self._boot.board.live()
        return {
            "bundle_hash": self.generation.config.bundle_hash,
            "failing": self._failing(),
            "connections": sum(gauge(row.memory, Gauge.CONNECTIONS) for row in live),
            "workers": [
                {"worker": row.worker, "pid": row.pid, "connections": gauge(row.memory, Gauge.CONNECTIONS)}
                for row in live
            ],
        }


def _anchors(config: Config) -> Anchors:
    identity = config.identity
    return Anchors(() if identity.outside else Bundle.parse(identity.bundle).anchors, config.trust_domain)


def resident_bytes() -> int:
    """Of this process, as the kernel counts it; pages shared with others included."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
