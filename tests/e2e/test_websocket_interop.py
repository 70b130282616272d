"""The interoperability table: each library as the client and as the service, with the gateway between."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.websocket_parties import CALLERS, FRAGMENTS, PROTOCOLS, SERVICES, Caller, Message, Service
from tests.wire.rig import Rig

ROUTE = """\
  - name: {name}
    match: {{path: /orders/{name}, methods: [GET]}}
    upstream: {{service: orders, endpoints: ["127.0.0.1:{port}"], timeout_s: 10}}
    public: {{reason: a test without tokens}}
"""


class InteropRig(Rig):
    """A route to each service."""

    services: dict[str, Service]

    def prepare(self, directory: Path) -> None:
        self.services = {name: kind(directory / "orders") for name, kind in SERVICES.items()}
        entries = "".join(ROUTE.format(name=name, port=service.port) for name, service in self.services.items())
        (directory / "policies" / "routes.yaml").write_text(f"routes:\n{entries}")

    def calling(self, client: str, service: str, *protocols: str) -> AbstractContextManager[Caller]:
        """An open WebSocket."""
        bundle = self.gateway.directory / "state" / "identity" / "public" / "bundle.pem"
        url = f"wss://localhost:{self.gateway.public}/orders/{service}"
        return CALLERS[client](url, ssl.create_default_context(cafile=bundle), protocols)

    def close(self) -> None:
        for service in self.services.values():
            service.close()
        super().close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropRig]:
    rig = InteropRig(tmp_path_factory.mktemp("interop") / "edge")
    yield rig
    rig.close()


MESSAGES: dict[str, list[Message]] = {
    "text": ["Grüße, 世界 🙂"],
    "empty text": [""],
    "binary": [bytes(range(256))],
    "text in fragments": ["Gr", "üß", "", "e"],
    "binary in fragments": [b"a", b"", bytes(70_000), b"z"],
    "a MiB of text": ["äx" * (1 << 19)],
    "a MiB of bytes": [bytes(range(256)) * 4096],
}


@pytest.mark.parametrize("client", CALLERS)
@pytest.mark.parametrize("service", SERVICES)
def test_messages_of_every_kind_come_back(rig: InteropRig, client: str, service: str) -> None:
    with rig.calling(client, service) as caller:
        for name, parts in MESSAGES.items():
            caller.send(*parts)
            whole = parts[0][:0].join(parts)  # type: ignore[arg-type]
            assert caller.receive() == whole, name
        caller.send("!fragments")
        assert caller.receive() == "".join(FRAGMENTS)


@pytest.mark.parametrize("client", CALLERS)
@pytest.mark.parametrize("service", SERVICES)
def test_pings_are_answered_by_the_other_end(rig: InteropRig, client: str, service: str) -> None:
    with rig.calling(client, service) as caller:
        assert caller.ping()
        caller.send("!ping")
        assert caller.receive() == "answered"


@pytest.mark.parametrize("client", CALLERS)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "zu spät"), (3000, "x" * 123), (4999, "own")])
def test_close_codes_reach_the_other_end(rig: InteropRig, client: str, service: str, code: int, reason: str) -> None:
    ends = rig.services[service].ends
    while not ends.empty():
        ends.get()
    with rig.calling(client, service) as caller:
        assert caller.close(code, reason) == (code, reason)
    assert ends.get(timeout=10) == (code, reason)
    with rig.calling(client, service) as caller:
        caller.send(f"!close {code} {reason}")
        assert caller.closed() == (code, reason)
    assert ends.get(timeout=10) == (code, reason)


@pytest.mark.parametrize("client", CALLERS)
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(("offered", "chosen"), [((), None), (("v1.chat",), "v1.chat"), (PROTOCOLS, "v2.chat")])
def test_subprotocols_are_agreed_on_and_compression_is_not(
    rig: InteropRig, client: str, service: str, offered: tuple[str, ...], chosen: str | None
) -> None:
    with rig.calling(client, service, *offered) as caller:
        assert (caller.subprotocol, caller.extensions) == (chosen, 0)
