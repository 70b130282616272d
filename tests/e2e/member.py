"""An instance of a service: it answers over mTLS, and tells a gateway so over another connection."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, issue


@dataclass(frozen=True)
class Told:
    """What the gateway answered."""

    status: int
    facts: dict[str, Any]

    @property
    def rule(self) -> str:
        """Of a refusal."""
        return str(self.facts.get("rule", ""))


def identities(directory: Path, *names: str) -> dict[str, Path]:
    """A certificate for each; `orders.2` is another one of `orders`."""
    found = {}
    for name in names:
        service = name.partition(".")[0]
        issue(directory, service)
        found[name] = directory / f"identity-{name}"
        shutil.copytree(directory / service, found[name])
    return found


def call(gateway: Gateway, identity: Path, method: str, path: str, body: object = None, timeout_s: float = 30) -> Told:
    """One request to the services listener, over a connection of its own."""
    context = ssl.create_default_context(cafile=identity / "bundle.pem")
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    context.check_hostname = False  # the listener shows the gateway's identity, and this is a test of the other side
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.ports["services"], timeout=timeout_s, context=context)
    try:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        connection.request(method, path, raw, {"content-type": "application/json"} if raw is not None else {})
        answer = connection.getresponse()
        text = answer.read()
        is_json = "json" in answer.headers.get("content-type", "")
        return Told(answer.status, json.loads(text) if is_json and text else {})
    finally:
        connection.close()


def place(service: str, instance: str) -> str:
    return f"/v1/services/{service}/instances/{instance}"


class Member:
    """A service that runs, and registers itself when it is told to."""

    def __init__(self, identity: Path, name: str, service: str = "orders", **wish: object) -> None:
        self.identity, self.name, self.service = identity, name, service
        self.upstream = Upstream(identity)
        self.wish: dict[str, object] = {"address": f":{self.upstream.port}", "ttl_s": 30, **wish}

    def register(self, gateway: Gateway, **changes: object) -> Told:
        return call(gateway, self.identity, "PUT", place(self.service, self.name), self.wish | changes)

    def leave(self, gateway: Gateway) -> Told:
        return call(gateway, self.identity, "DELETE", place(self.service, self.name))

    def close(self) -> None:
        with suppress(OSError):
            self.upstream.close()


def instances(gateway: Gateway, state: str = "live") -> set[str]:
    """`SERVICE/INSTANCE` of what a gateway says it knows, in a state."""
    _, facts = gateway.ask_admin("/v1/services")
    rows: Any = facts["instances"]
    return {f"{row['service']}/{row['instance']}" for row in rows if row["state"] == state}
