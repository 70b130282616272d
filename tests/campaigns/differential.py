"""The same request to each shell: the caller, the gateway and the upstream must read the same, or all must refuse alike.

Each request goes over HTTP/1.1, over our own HTTP/2 and through Hypercorn into the ASGI shell, each time spelled another way
(`asks`). Held against each other, for each of the three, are four readings: what the caller meant; the status it got, or why
not; what the upstream read, by a reader of its own; and what the gateway says in its log that it let pass. Between them are
messages that are none (`spoiled`): no upstream may read one to its end, and nothing behind one may be heard.

Requests come in batches, pipelined or as streams at once. What was sent behind a message that ended an HTTP/1.1 connection is
sent again on the next. Each round has gateways of its own, so that its log stays small enough to be read.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

import hpack

from edge.forward.fields import HOP_BY_HOP, MANAGED
from tests.campaigns.asks import Ask, draw_ask, in_http1, in_http2
from tests.wire.raw_h2 import WINDOW_UPDATE, Field, RawH2, block, frame, setting, u32
from tests.wire.rig import Client, Rig
from tests.wire.spoiled import SPOILED_HTTP1, spoiled_http2

BATCH = 16
BATCHES_PER_CONNECTION = 8
"""So that the resets of malformed requests do not overdraw a connection."""
ROUND = 10_000
SPOILED_SHARE = 0.1
LOGGED_PATH = 500
"""The log keeps no more of a path for certain."""
SHELLS = ("front", "hypercorn")
_OURS = MANAGED | HOP_BY_HOP | {b"traceparent", b"host", b"content-length", b"expect", b"authorization"}
_OF_A_HANDSHAKE = b"sec-websocket-"


@dataclass(frozen=True)
class Seen:
    """What the upstream read."""

    method: bytes
    target: bytes
    authority: bytes
    fields: tuple[Field, ...]
    """Those that came from the caller, sorted by name."""
    body: bytes


@dataclass(frozen=True)
class Reading:
    """What came of one request in one way."""

    status: int
    reason: str | None
    """Of a refusal; None when there was no body to say it."""
    seen: Seen | None


@dataclass
class Outcome:
    """What the campaign saw."""

    asked: Counter[str] = field(default_factory=Counter)
    by_status: Counter[int] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    spoiled: Counter[str] = field(default_factory=Counter)
    held_to_the_log: int = 0
    disagreements: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{sum(self.asked.values())} asked {dict(self.asked)}, {dict(sorted(self.by_status.items()))}, "
            f"{dict(self.by_reason)}, spoiled {dict(self.spoiled)}, {self.held_to_the_log} held to the log, "
            f"{len(self.disagreements)} disagreements"
        )


@dataclass(frozen=True)
class _Told:
    """What a caller got."""

    status: int
    decision_id: str
    reason: str | None


# -- asking ------------------------------------------------------------------------------------------


def over_http1(rig: Rig, asks: list[Ask], draw: random.Random) -> list[_Told]:
    """Pipelined, on as many connections as it takes."""
    told: list[_Told] = []
    while len(told) < len(asks):
        with Client(rig.gateway) as client:
            raw = b"".join(in_http1(ask, draw) for ask in asks[len(told) :])
            cut = draw.randrange(len(raw)) if draw.random() < 0.3 else len(raw)
            client.send_while_reading(raw[:cut])
            client.send_while_reading(raw[cut:])
            is_kept = True
            while is_kept and len(told) < len(asks):
                is_head = asks[len(told)].method == "HEAD"
                answer = client.answer(is_head=is_head)
                if answer.status >= 200:
                    is_problem = answer.fields.get("content-type") == "application/problem+json" and not is_head
                    reason = answer.reason if is_problem else None
                    told.append(_Told(answer.status, answer.fields["x-request-id"], reason))
                    is_kept = answer.fields.get("connection") != "close"
            assert is_kept or client.is_closed(), f"something behind {asks[len(told) - 1]}"
    return told


class Http2Asker:
    """One connection of HTTP/2, spelled by hand."""

    def __init__(self, rig: Rig) -> None:
        self.client = RawH2(rig.gateway)
        self.client.send(frame(WINDOW_UPDATE, 0, 0, u32(1 << 30)) + setting((4, 1 << 20)))
        self._encoder = hpack.Encoder()
        self._next = 1

    def encode(self, fields: list[Field]) -> bytes:
        return self._encoder.encode(fields, huffman=self._next % 4 == 1)

    def ask(self, asks: list[Ask | None], draw: random.Random) -> list[_Told]:
        """All streams at once; None is a spoiled one."""
        raw, first = b"", self._next
        for ask in asks:
            if ask is None:
                raw += spoiled_http2(self._next, draw)
            else:
                raw += in_http2(self._next, ask, draw, self.encode if draw.random() < 0.7 else block)
            self._next += 2
        self.client.send(raw)
        return [self._told(first + 2 * at) for at in range(len(asks))]

    def _told(self, stream: int) -> _Told:
        heard = self.client.until_over(stream)
        assert not heard.is_closed or stream in heard.ended, f"the connection ended: {heard.goaways}"
        fields = heard.fields.get(stream, {})
        reason = None
        if fields.get(b"content-type") == b"application/problem+json" and heard.bodies.get(stream):
            reason = heard.bodies[stream].partition(b"/problems/")[2].partition(b'"')[0].decode("ascii")
        return _Told(heard.statuses.get(stream, 0), fields.get(b"x-request-id", b"").decode("ascii"), reason)


# -- readings ----------------------------------------------------------------------------------------


def read_all(rig: Rig) -> dict[str, Seen]:
    """All requests that the upstream read since it was cleared, by the id that the gateway gave each."""
    found: dict[str, Seen] = {}
    for raw in rig.upstream.requests:
        head, _, raw_body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines[1:])]
        by_name = dict(fields)
        method, target, version = lines[0].split(b" ")
        assert version == b"HTTP/1.1"
        assert not (b"content-length" in by_name and b"transfer-encoding" in by_name)
        body = _unchunked(raw_body) if b"transfer-encoding" in by_name else raw_body
        kept = tuple(sorted((each for each in fields if each[0] not in _OURS), key=lambda each: each[0]))
        decision_id = by_name[b"x-request-id"].decode("ascii")
        assert decision_id not in found
        found[decision_id] = Seen(method, target, by_name[b"host"], kept, body)
    return found


def _unchunked(raw: bytes) -> bytes:
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return body


def meant(ask: Ask) -> Seen:
    """What the upstream must have read if anything, as far as the caller can say it; paths with all escapes undone."""
    path, mark, query = ask.path.partition(b"?")
    kept = [(name, value) for name, value in ask.fields if name not in _OURS and not name.startswith(_OF_A_HANDSHAKE)]
    return Seen(
        ask.method.encode("ascii"),
        unquote_to_bytes(path.removeprefix(b"/api")) + mark + unquote_to_bytes(query),
        ask.authority.lower(),
        tuple(sorted(kept, key=lambda each: each[0])),
        ask.body or b"",
    )


def is_as_meant(ask: Ask, seen: Seen) -> bool:
    path, mark, query = seen.target.partition(b"?")
    undone = unquote_to_bytes(path) + mark + unquote_to_bytes(query)
    return meant(ask) == Seen(seen.method, undone, seen.authority, seen.fields, seen.body)


# -- the campaign ------------------------------------------------------------------------------------


class _Round:
    """Two gateways, what was asked of them, and what the upstreams read."""

    def __init__(self, rigs: dict[str, Rig], draw: random.Random, outcome: Outcome) -> None:
        self._rigs = rigs
        self._draw = draw
        self._outcome = outcome
        self._passed: dict[str, dict[str, Seen]] = {shell: {} for shell in rigs}

    def run(self, count: int) -> None:
        done = 0
        while done < count:
            askers = {shell: Http2Asker(rig) for shell, rig in self._rigs.items()}
            for _ in range(BATCHES_PER_CONNECTION):
                size = min(BATCH, count - done)
                if size:
                    self._batch([draw_ask(self._draw) for _ in range(size)], askers)
                    done += size
            for asker in askers.values():
                asker.client.close()

    def _batch(self, asks: list[Ask], askers: dict[str, Http2Asker]) -> None:
        over_one = partial(over_http1, self._rigs["front"], asks, self._draw)
        readings = {"HTTP/1.1": self._in_one_way("front", over_one)}
        for shell, asker in askers.items():
            readings[f"HTTP/2 {shell}"] = self._in_one_way(shell, partial(self._with_spoiled, asker, asks))
        if self._draw.random() < SPOILED_SHARE * BATCH:
            self._spoil_http1()
        for at, ask in enumerate(asks):
            told = {way: found[at] for way, found in readings.items()}
            self._compare(ask, told)

    def _in_one_way(self, shell: str, work: Callable[[], list[_Told]]) -> list[Reading]:
        upstream = self._rigs[shell].upstream
        upstream.clear()
        found = work()
        seen = read_all(self._rigs[shell])
        self._passed[shell].update(seen)
        unasked = set(seen) - {told.decision_id for told in found}
        if unasked:
            self._outcome.disagreements.append(f"{shell}: the upstream read what nobody was answered: {unasked}")
        return [Reading(told.status, told.reason, seen.get(told.decision_id)) for told in found]

    def _with_spoiled(self, asker: Http2Asker, asks: list[Ask]) -> list[_Told]:
        mixed: list[Ask | None] = []
        for ask in asks:
            mixed += [None, ask] if self._draw.random() < SPOILED_SHARE else [ask]
        told = asker.ask(mixed, self._draw)
        for mixed_in, each in zip(mixed, told, strict=True):
            if mixed_in is None:
                self._outcome.spoiled["HTTP/2"] += 1
                if each.status not in (0, 400):
                    self._outcome.disagreements.append(f"a spoiled request got {each}")
        return [each for ask, each in zip(mixed, told, strict=True) if ask is not None]

    def _spoil_http1(self) -> None:
        """Alone on a connection; behind it comes what must never be heard."""
        rig, raw = self._rigs["front"], self._draw.choice(SPOILED_HTTP1)
        rig.upstream.clear()
        with Client(rig.gateway) as client:
            answer = client.send(raw + b"GET /orders/evil HTTP/1.1\r\nHost: localhost\r\n\r\n").answer()
            is_closed = client.is_closed()
        self._outcome.spoiled["HTTP/1.1"] += 1
        if not (answer.status in (400, 414, 431) and is_closed and not rig.upstream.requests):
            self._outcome.disagreements.append(
                f"spoiled {raw!r}: {answer}, closed: {is_closed}, {rig.upstream.requests}"
            )

    def _compare(self, ask: Ask, told: dict[str, Reading]) -> None:
        outcome, first = self._outcome, told["HTTP/1.1"]
        outcome.by_status[first.status] += 1
        outcome.by_reason[first.reason or ("passed" if first.seen else "untold")] += 1
        outcome.asked.update(told.keys())
        are_equal = all(each == first for each in told.values())
        are_sound = all((each.status == 200) == (each.seen is not None) for each in told.values())
        if not (are_equal and are_sound and (first.seen is None or is_as_meant(ask, first.seen))):
            outcome.disagreements.append(
                "\n".join((_brief(ask), *(f"  {way}: {_brief(each)}" for way, each in told.items())))
            )

    def hold_to_the_log(self) -> None:
        """What the gateway recorded that it let pass, and what the upstream read."""
        for shell, rig in self._rigs.items():
            leaves = {str(leaf["event.id"]): leaf for leaf in rig.leaves()}
            for decision_id, seen in self._passed[shell].items():
                leaf = leaves[decision_id]
                path = str(leaf["url.path"])
                path = path.removeprefix("/api") if leaf["route.name"] == "stripped" else path
                logged = (
                    leaf["http.request.method"],
                    path[:LOGGED_PATH],
                    leaf["url.domain"],
                    leaf["http.request.body.bytes"],
                    leaf["event.outcome"],
                )
                read = (
                    seen.method.decode("ascii"),
                    seen.target.partition(b"?")[0].decode("ascii")[:LOGGED_PATH],
                    seen.authority.partition(b":")[0].decode("ascii"),
                    len(seen.body),
                    "success",
                )
                self._outcome.held_to_the_log += 1
                if logged != read:
                    self._outcome.disagreements.append(f"{shell}: logged {logged}, read {read}")


def _brief(what: object) -> str:
    return re.sub(r"(.)\1{40,}", r"\1…", str(what))[:1500]


def campaign(directory: Path, count: int, seed: int, *, say: Callable[[str], None] = print) -> Outcome:
    """`count` requests, each in three ways."""
    outcome = Outcome()
    for number, begun in enumerate(range(0, count, ROUND)):
        with ExitStack() as stack:
            rigs = {
                shell: stack.enter_context(closing(Rig(directory / f"{number}-{shell}", shell))) for shell in SHELLS
            }
            this = _Round(rigs, random.Random(seed + number), outcome)
            this.run(min(ROUND, count - begun))
            for rig in rigs.values():
                assert not [line for line in rig.gateway.lines if "unexpected" in line]
            stack.close()
            this.hold_to_the_log()
    for disagreement in outcome.disagreements[:10]:
        say(disagreement)
    assert not outcome.disagreements, len(outcome.disagreements)
    return outcome
