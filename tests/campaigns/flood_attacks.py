"""Floods, one function for each.

Each attack is one connection, or a crowd of them, that does its worst until the gateway ends it, and tells how that was: by
the code of a GOAWAY or of a Close, the status of the last answer, or `closed`. `pushed` is a connection that was reset while
it still sent: its own bytes pushed the gateway's last words away.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h2.exceptions

from tests.wire.h2_client import H2Client
from tests.wire.raw_h2 import END_HEADERS, END_STREAM, GET, HEADERS, RawH2, block, frame, headers, string, u32
from tests.wire.rig import HEAD, Client
from tests.wire.test_http2_abuse import FLOODS
from tests.wire.websocket_rig import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    End,
    StreamEnd,
    extended_connect,
    handshake,
    sent,
)

CROWD = 60
OVER = 600
"""More connections than the gateway of the campaign lets one address have."""
MOST_TURNS = 4000
"""Of one connection; who is not cut by then is not cut."""
PATIENCE_S = 20
TOKEN = "FLOOD_TOKEN"
"""In the environment: a good one, to make bad ones of."""


@dataclass(frozen=True)
class Where:
    """A gateway, as a client needs it."""

    directory: Path
    public: int


Attack = Callable[[Where], str]


# -- HTTP/2 ------------------------------------------------------------------------------------------


ROOM = frame(8, 0, 0, u32(1 << 30))
"""For all the answers that these clients do not count."""


def goaway(client: RawH2) -> str:
    """How it ended."""
    client.tls.settimeout(PATIENCE_S)
    codes = [code for _, code in client.until_closed().goaways]
    return f"goaway {codes[-1]}" if codes else "pushed"


def frames(said: Callable[[int], bytes], where: Where) -> str:
    with RawH2(where) as client:
        with suppress(OSError):
            for at in range(MOST_TURNS):
                client.send(said(2 * at + 1))
        return goaway(client)


def long_block(at: int) -> bytes:
    """A head that goes on for ever (CVE-2024-27316)."""
    first = headers(1, flags=END_STREAM) if at == 1 else b""
    return first + frame(9, 0, 1, block([(b"x-a", b"a" * 4000)]))


def bomb(at: int) -> bytes:
    """One entry in the table, and a thousand references to it (CVE-2016-6581)."""
    return frame(HEADERS, END_STREAM | END_HEADERS, at, block(GET) + entry() + b"\xbe" * 1000)


def entry() -> bytes:
    """A literal with indexing: 4000 bytes, which nearly fill the table."""
    return b"\x40" + string(b"x-a") + string(b"a" * 4000)


def small_bombs(where: Where) -> str:
    """Heads that unfold to just what one block may: each stream is answered."""
    with RawH2(where) as client:
        client.send(ROOM + headers(1) + frame(HEADERS, END_STREAM | END_HEADERS, 3, block(GET) + entry()))
        for at in range(5, 405, 2):
            client.send(frame(HEADERS, END_STREAM | END_HEADERS, at, block(GET) + b"\xbe" * 14))
            if at % 40 == 5:
                client.fence()
        client.until_over(403)
        heard = client.heard
        return str(heard.statuses.get(403)) if not heard.goaways else goaway(client)


def half_heads(where: Where) -> str:
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawH2(where)).send(headers(1, flags=END_STREAM)) for _ in range(CROWD // 3)]
        return only(map(goaway, crowd))


def bad_tokens_http2(where: Where) -> str:
    with RawH2(where) as client:
        client.send(ROOM)
        for at in range(1, 1601, 2):
            token = b"Bearer " + bad_token(at)
            client.send(headers(at, [*GET[:3], (b":path", b"/quick/7"), (b"authorization", token)]))
            if at % 32 == 1:
                client.fence()
        return "429" if 429 in client.until_over(1599).statuses.values() else goaway(client)


def only(ends: Iterable[str]) -> str:
    """One word for a crowd."""
    return " and ".join(sorted(set(ends)))


# -- HTTP/1.1 ----------------------------------------------------------------------------------------


def last_status(client: Client) -> str:
    """Of the answers that come until the connection ends."""
    client.tls.settimeout(PATIENCE_S)
    status = "pushed"
    with suppress(OSError, EOFError):
        while True:
            status = str(client.answer().status)
    return status


def bytes_of(first: bytes, more: bytes, where: Where) -> str:
    """Say something, and then something else for ever."""
    with Client(where) as client:
        with suppress(OSError):
            client.send(first)
            for _ in range(MOST_TURNS):
                client.send(more)
        return last_status(client)


def pipeline(where: Where) -> str:
    """Two thousand requests without waiting for an answer."""
    count = 2000
    with Client(where) as client:
        client.send_while_reading((b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n") * (count - 1))
        client.send(b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
        client.tls.settimeout(PATIENCE_S)
        statuses = Counter(client.answer().status for _ in range(count))
        assert sum(statuses.values()) == count
        return only(map(str, statuses))


def deaf_pipeline(where: Where) -> str:
    """The same, and nothing is read."""
    with Client(where) as client:
        client.tls.settimeout(PATIENCE_S)
        try:
            for _ in range(MOST_TURNS):
                client.send((b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"\r\n") * 100)
        except OSError as exc:
            return "timeout" if isinstance(exc, TimeoutError) else "closed"
        return "never"


def slow_heads(where: Where) -> str:
    with ExitStack() as stack:
        crowd = [stack.enter_context(Client(where)).send(b"GET /orders/7 HTTP/1.1\r\nX-A: ") for _ in range(CROWD)]
        end_s, ends = time.monotonic() + PATIENCE_S, []
        while crowd and time.monotonic() < end_s:
            gone = select.select([each.tls for each in crowd], [], [], 0.05)[0]
            for client in [each for each in crowd if each.tls in gone]:
                crowd.remove(client)
                ends.append("closed" if client.is_closed() else "answered")
            for client in crowd:
                with suppress(OSError):
                    client.send(b"b")
        return only(ends) if not crowd else "never"


def bad_tokens(where: Where) -> str:
    with Client(where) as client:
        status = 0
        for at in range(800):
            if status == 429:
                break
            client.send(b"GET /quick/7 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer %b\r\n\r\n" % bad_token(at))
            status = client.answer().status
        return str(status)


def bad_token(number: int) -> bytes:
    """Well-formed, by an issuer and a key that there are, never the same, and signed by nobody."""
    head, claims, _ = os.environ[TOKEN].split(".")
    return f"{head}.{claims}.{number:086d}".encode()


# -- connections -------------------------------------------------------------------------------------


def handshakes(where: Where) -> str:
    for _ in range(20):
        Client(where).close()
    return "closed"


def until_closed(raw: socket.socket) -> str:
    raw.settimeout(PATIENCE_S)
    try:
        while raw.recv(4096):
            pass
    except TimeoutError:
        return "never"
    except OSError:
        pass
    return "closed"


def crowd_of(said: bytes, where: Where) -> str:
    """Connections that say this and no more."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", where.public), 5)) for _ in range(CROWD)]
        for raw in crowd:
            raw.sendall(said)
        return only(map(until_closed, crowd))


def too_many(where: Where) -> str:
    """More connections than one address may have: those that are too many are not even shaken hands with."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", where.public), 5)) for _ in range(OVER)]
        return until_closed(crowd[-1])


# -- WebSockets --------------------------------------------------------------------------------------


def close_code(end: End) -> str:
    end.tls.settimeout(PATIENCE_S)
    with suppress(OSError, EOFError, h2.exceptions.ProtocolError):
        while True:
            got = end.frame()
            if got.opcode == CLOSE:
                return f"close {int.from_bytes(got.payload[:2], 'big')}"
    return "pushed"


def socket_over_http1(where: Where) -> End:
    return End(Client(where).tls).send(handshake("/small/socket"))


def socket_over_http2(where: Where) -> End:
    client = H2Client(where)
    head = extended_connect(handshake("/small/socket"))
    return StreamEnd(client, client.head(head, is_end=False))


def socket_frames(begin: Callable[[Where], End], said: Callable[[int], bytes], where: Where) -> str:
    end = begin(where)
    try:
        assert end.answer().status in (101, 200)
        with suppress(OSError, h2.exceptions.ProtocolError):
            for at in range(MOST_TURNS):
                end.send(said(at))
                if begin is socket_over_http1 and select.select([end.tls], [], [], 0)[0]:
                    break  # it is told something, which more bytes would push away
        return close_code(end)
    finally:
        end.end()


def small_messages(begin: Callable[[Where], End], where: Where) -> str:
    """What is allowed, and passed on: a hundred thousand messages with nothing in them."""
    end = begin(where)
    try:
        assert end.answer().status in (101, 200)
        for _ in range(100):
            end.send(sent(BINARY) * 1000)
        return close_code(end.send(sent(CLOSE)))
    finally:
        end.end()


SOCKET_FLOODS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "pings": (lambda at: sent(PING) * 100, "close 1008"),
    "fragments": (lambda at: sent(CONT if at else BINARY, fin=False) + sent(CONT, fin=False) * 99, "close 1009"),
    "a message without end": (lambda at: sent(CONT if at else BINARY, bytes(60_000), fin=False), "close 1009"),
}


SOCKETS = {"h1": socket_over_http1, "h2": socket_over_http2}
CALM = ("goaway 11", "pushed")
ATTACKS: dict[str, tuple[Attack, tuple[str, ...]]] = {
    **{f"h2 {kind}": (partial(frames, said), CALM) for kind, said in FLOODS.items()},
    "h2 a head without end": (partial(frames, long_block), CALM),
    "h2 HPACK bombs": (partial(frames, bomb), CALM),
    "h2 HPACK bombs, small": (small_bombs, ("431",)),
    "h2 half heads": (half_heads, ("goaway 11",)),
    "h2 bad tokens": (bad_tokens_http2, ("429",)),
    "h1 slow heads": (slow_heads, ("closed",)),
    "h1 a line without end": (partial(bytes_of, b"GET /", b"a" * 4096), ("414", "pushed")),
    "h1 a head without end": (partial(bytes_of, b"GET / HTTP/1.1\r\n", b"X-A: b\r\n" * 500), ("431", "pushed")),
    "h1 empty lines": (partial(bytes_of, b"", b"\r\n" * 2000), ("400", "pushed")),
    "h1 tiny chunks": (
        partial(
            bytes_of,
            b"POST /slashes/x HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n" * 500,
        ),
        ("413", "pushed"),
    ),
    "h1 pipelines": (pipeline, ("404",)),
    "h1 pipelines, nothing read": (deaf_pipeline, ("closed",)),
    "h1 bad tokens": (bad_tokens, ("429",)),
    "TLS handshakes": (handshakes, ("closed",)),
    "TLS half handshakes": (partial(crowd_of, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ("closed",)),
    "TLS garbage": (partial(crowd_of, b"\x16\x03\x01\x00\x05" + bytes(5)), ("closed",)),
    "connections": (too_many, ("closed",)),
    **{
        f"WebSocket {version} {kind}": (partial(socket_frames, begin, said), (end, "pushed"))
        for version, begin in SOCKETS.items()
        for kind, (said, end) in SOCKET_FLOODS.items()
    },
    **{
        f"WebSocket {version} small messages": (partial(small_messages, begin), ("close 0",))
        for version, begin in SOCKETS.items()
    },
}
"""By protocol and kind: what is done, and how the gateway may end it."""
