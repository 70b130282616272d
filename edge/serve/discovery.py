"""Registration and discovery in one worker: what is put together, when it looks, and what an operator is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from edge import assemble
from edge.assemble import WorkerShared
from edge.config.settings import Config
from edge.control.inside import Facts
from edge.model.route import Route
from edge.pipeline import Gateway
from edge.registry.ledger import Held
from edge.routing.table import in_order
from edge.serve.instances import InstanceStatus, instances
from edge.serve.pool import Boot
from edge.serve.registrar import Registrar
from edge.serve.registry import LOOK_S, WALK_S, Registry, facts
from edge.serve.registry_log import RegistryLog
from edge.serve.registry_trust import View
from edge.timers import Timers


class Discovery:
    """Owner: `Serving`. Without a CA of ours (`identity:`) it knows the files and nobody else."""

    def __init__(self, boot: Boot, shared: WorkerShared, config: Config, on_declared: Callable[[], None]) -> None:
        """`on_declared` is called when other declared routes live than before; then ask for `gateway`."""
        self._config, self._shared = config, shared
        self._board = boot.board
        self._log = RegistryLog(shared.recorder, boot.report)
        self._issuances = shared.issuances
        view = View.of(config, shared.issuances)
        self._registry: Registry | None = None
        self.register: Registrar | None = None
        if view is not None:
            self._registry = Registry(
                shared.registry,
                shared.roster,
                shared.status,
                view,
                self._log,
                on_declared,
                tells_ends=boot.index == 0,
            )
            self.register = Registrar(self._registry, shared.pool)

    async def start(self) -> None:
        """Know who is there before the first request comes."""
        if self._registry is not None and self._is_used:
            await self._registry.start()

    def follow(self, timers: Timers) -> None:
        if self._registry is not None and self._is_used:
            timers.every(LOOK_S, "registry", self._registry.look)
            timers.every(WALK_S, "registry walk", self._registry.walk)

    @property
    def _is_used(self) -> bool:
        """Nobody can have registered where neither this gateway takes registrations nor another one shares the store."""
        return self._config.store is not None or "services" in self._config.opened

    def adopt(self, config: Config, gateway: Gateway) -> Gateway:
        """Another generation begins to serve: what is known is held against its grants and routes."""
        self._config = config
        view = View.of(config, self._issuances)
        if self._registry is not None and view is not None:
            self._registry.adopt(view)
        return self.gateway(gateway)

    def gateway(self, gateway: Gateway) -> Gateway:
        """The generation with the declared routes that live now."""
        return assemble.with_declared(gateway, self._config, self._shared, self._declared)

    @property
    def _declared(self) -> tuple[Route, ...]:
        return self._registry.composed.routes if self._registry is not None else ()

    def routes(self) -> list[Facts]:
        """Every route that is live, most specific first, and declared ones that are not."""
        live = [_route_facts(route, None) for route in in_order((*self._config.routes, *self._declared))]
        reasons = self._registry.composed.reasons if self._registry is not None else {}
        refused = [
            {
                "name": f"{service}:{path}",
                "path": path,
                "service": service,
                "source": "declared",
                "live": False,
                "reason": why,
            }
            for (service, path), why in sorted(reasons.items())
        ]
        return [*live, *refused]

    def facts(self) -> Facts:
        """Who serves what, and how they do by what all workers said last, at most a second ago. `health` is None for whom no
        worker has balanced yet, and who is beyond the bound of what they list."""
        registry = self._registry
        endpoints = {
            (route.upstream.service, address) for route in self._config.routes for address in route.upstream.endpoints
        }
        rows: list[Facts] = [_endpoint_facts(service, address) for service, address in endpoints]
        if registry is not None:
            held = [each for each in registry.ledger.all() if not each.entry.gone]
            rows += [_instance_facts(each, registry) for each in held]
        health = {(each.service, each.name): _health(each) for each in instances(self._board)}
        rows = [{**row, "health": health.get((str(row["service"]), str(row["instance"])))} for row in rows]
        rows.sort(key=lambda row: (str(row["service"]), str(row["instance"])))
        return {
            "services": sorted(grant.service for grant in self._config.grants),
            "instances": rows,
            "refused": [dict(each) for each in self._log.refusals],
        }


def _health(status: InstanceStatus) -> Facts:
    return {
        "state": status.state,
        "in_flight": status.in_flight,
        "ejected_since": _moment(status.since) if status.since else None,
        "ejected_until": _moment(status.until) if status.until else None,
    }


def _moment(since_epoch_s: float) -> str:
    return datetime.fromtimestamp(since_epoch_s, UTC).isoformat(timespec="milliseconds")


def _endpoint_facts(service: str, address: tuple[str, int]) -> Facts:
    text = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return {"service": service, "instance": text, "address": text, "state": "live", "source": "routes.yaml"}


def _instance_facts(held: Held, registry: Registry) -> Facts:
    entry = held.entry
    why = registry.why_not(held)
    return {
        "service": entry.service,
        "instance": entry.instance,
        "address": facts(entry)["service.address"],
        "state": "refused" if why is not None else "draining" if entry.draining else "live",
        "reason": why,
        "source": "registered",
        "since": _moment(entry.since_ms / 1000),
        "expires_in_s": round(entry.expires_ms / 1000 - time.time(), 3),
        "gateway": entry.gateway,
        "weight": entry.weight,
        "health_path": entry.health_path,
        "certificate": entry.holder[0][1] if entry.holder else None,
        "routes": [
            {"path": each.path, "methods": each.methods, "hosts": each.hosts, "live": why is None and reason is None,
             "reason": reason}
            for each in entry.routes
            for reason in (registry.why_not_live(entry.service, each.path),)
        ],
    }  # fmt: skip


def _route_facts(route: Route, reason: str | None) -> Facts:
    return {
        "name": route.name,
        "hosts": list(route.hosts),
        "path": route.pattern.text,
        "methods": list(route.methods),
        "service": route.upstream.service,
        "spiffe_id": route.upstream.spiffe_id,
        "endpoints": [f"{host}:{port}" for host, port in route.upstream.endpoints],
        "auth": list(route.auth),
        "source": "declared" if route.place[0] == "registered" else "routes.yaml",
        "live": True,
        "reason": reason,
    }
