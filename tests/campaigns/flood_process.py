"""What runs beside the gateway while the second client is served: `python -m tests.campaigns.flood_process …`.

All of it is of the idle scheduling class (sched(7)): the second client has the same core, and must be kept waiting by the
gateway only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import h2.exceptions
from joserfc.jwk import ECKey

from examples.issuer.minting import Minter
from tests.campaigns.flood_attacks import ATTACKS, Where
from tests.e2e.upstream import Upstream
from tests.wire.rig import HEAD, Client
from tests.wire.websocket_rig import SocketUpstream

KEY = "FLOOD_KEY"
"""In the environment: what valid load signs its tokens with."""
ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
BIG = 262_144
SMALL_OF_A_ROUND, NEW_OF_A_ROUND = 8, 4
VALID_FROM = "127.0.0.3"
"""What an attack did to the standing of its address is not held against valid load."""


def worker_ns(pid: int) -> int:
    """CPU time of a process so far (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def valid(where: Where, pid: int, share: float, until_s: float) -> str:
    """Ask what may be asked, as much as costs the worker this share of a core: small answers, a large one, and callers who
    come for the first time, which cost it ten times what they cost this process."""
    began_s, began_ns = time.monotonic(), worker_ns(pid)
    minter = Minter(ECKey.import_key(json.loads(os.environ[KEY])), ISSUER, AUDIENCE)
    plain = b"".join(
        b"GET /orders/%b HTTP/1.1\r\n" % each + HEAD + b"\r\n" for each in (b"big", *(b"7",) * SMALL_OF_A_ROUND)
    )
    with Client(where, source=VALID_FROM) as client:
        while (now_s := time.monotonic()) < until_s:
            if (worker_ns(pid) - began_ns) / 1e9 > share * (now_s - began_s):
                time.sleep(0.001)
                continue
            tokens = (minter.good("alice", []).encode() for _ in range(NEW_OF_A_ROUND))
            new = [b"GET /quick/7 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer %b\r\n\r\n" % each for each in tokens]
            client.send(plain + b"".join(new))
            for _ in range(1 + SMALL_OF_A_ROUND + NEW_OF_A_ROUND):
                answer = client.answer()
                assert answer.status == 200, answer
    return "200"


def repeat(work: Callable[[], str], until_s: float, ends: Counter[str]) -> None:
    while not ends or time.monotonic() < until_s:
        try:
            ends[work()] += 1
        except (OSError, EOFError, h2.exceptions.ProtocolError) as exc:
            ends[f"could not begin: {type(exc).__name__}"] += 1


class Sink(SocketUpstream):
    """Takes every WebSocket, and reads what comes."""

    def _serve(self, connection: socket.socket) -> None:
        super()._serve(connection)
        end = self.ends.get()
        with suppress(OSError, EOFError):
            end.tls.settimeout(60)
            while end.tls.recv(65536):
                pass
        end.end()


def serve(directory: Path) -> None:
    """What stands behind floods and valid load, until nobody needs it."""
    upstream, sink = Upstream(directory / "orders"), Sink(directory / "orders")
    upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % BIG + bytes(BIG)
    print(upstream.port, sink.port, flush=True)
    sys.stdin.read()


def main(arguments: list[str]) -> None:
    """`upstream DIRECTORY` · `load PID SHARE …` · `attack NAME …`, both with `DIRECTORY PORT SECONDS THREADS` behind."""
    what, *rest = arguments
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # so that who measures never waits for who attacks
    if what == "upstream":
        serve(Path(rest[0]))
        return
    *own, directory, port, seconds, threads = rest
    where, until_s = Where(Path(directory), int(port)), time.monotonic() + float(seconds)
    work: Callable[[], str]
    if what == "load":
        work = partial(valid, where, int(own[0]), float(own[1]), until_s)
    else:
        work = partial(ATTACKS[own[0]][0], where)
    print("go", flush=True)
    ends: Counter[str] = Counter()
    running = [threading.Thread(target=repeat, args=(work, until_s, ends)) for _ in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1:])
