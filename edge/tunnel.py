"""A WebSocket that is open: frames of a client ⇄ frames of an upstream, from the 101 to the leaf in the log.

`Tunnel` takes over from the exchange that shook hands; a shell feeds it the client's bytes and writes what comes back. Laws:

- Every frame is judged and written anew, in both directions: what one side breaks never reaches the other.
- The first Close decides. It is passed on as it came, code and reason; then the other side has `CLOSE_S` to answer.
- What the gateway ends, it ends by name: `Ending` is the closed list of codes and words that either side may hear.
- Who goes without a Close leaves the client with 1011, and the upstream with a connection that breaks: what happened is told.
- It lasts no longer than what it was permitted on: the token's `exp`, the upstream's certificate, the policy in force.
- The slot taken at admission is completed exactly once, at the end.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from edge.account import Account, when_recorded
from edge.authz.upgrade import require_upgrade
from edge.downstream import Shared
from edge.errors import (
    EdgeError,
    Forbidden,
    MalformedRequest,
    RuledError,
    UpstreamIdentityRejected,
    UpstreamProtocolError,
)
from edge.forward.io_pool import Pinned
from edge.forward.websocket import UpstreamStream
from edge.model.decision import Denial, Need, Permit
from edge.model.websocket import Handshake, WebSocketBounds
from edge.parse.frames import ABNORMAL, CLOSE, ControlPace, Frame, FrameReader, Violation, closing, encode
from edge.pipeline import Gateway, Walk
from edge.routing.match import match
from pki.svid import Revoked

CLOSE_S = 5.0
"""From the first Close to the answer to it."""
FRAMES_AT_ONCE = 32
"""Of one side; then others have their turn: the smallest frames cost the most by the byte, and a read may hold thousands."""
_MAX_NEEDS = 4


@dataclass(frozen=True, slots=True)
class _Words:
    reason: str
    """What the log says."""
    client: Frame
    """What the client hears; public."""
    upstream: Frame
    """What the upstream hears."""


def _words(reason: str, code: int, text: str, upstream_code: int = 1001) -> _Words:
    return _Words(reason, closing(code, text), closing(upstream_code, text))


class Ending(Enum):
    """Why the gateway ends a WebSocket."""

    EXPIRED = _words("credential-expired", 1008, "credential expired")
    REVOKED = _words("policy-changed", 1008, "no longer allowed")
    IDENTITY = _words("upstream-identity", 1001, "reconnect")
    DRAINING = _words("draining", 1001, "going away")
    IDLE = _words("idle", 1001, "idle")
    LOST = _words("upstream-protocol", 1011, "upstream lost")
    """It broke off, or what it said was no WebSocket; in the second case it hears why."""
    VIOLATION = _words("websocket-violation", 1002, "protocol violation")
    """Of the client; the code is the violation's."""


class Wire(Protocol):
    """What a tunnel asks of its shell; nothing is returned, nothing raises, also when the client has left."""

    def send_body(self, body: bytes) -> None: ...

    def send_end(self) -> None:
        """Nothing follows; what was sent still goes out."""

    def flush(self) -> None: ...

    def pause_body(self, *, is_paused: bool) -> None: ...

    def cut(self) -> None: ...


class _Side:
    """One end of the WebSocket."""

    __slots__ = ("has_closed", "is_full", "is_gone", "is_paused", "is_turn_due", "pace", "reader", "was_closed")

    def __init__(self, bounds: WebSocketBounds, now_s: float, *, is_masked: bool) -> None:
        self.reader = FrameReader(bounds, is_masked=is_masked)
        self.pace = ControlPace(now_s)
        self.has_closed = False
        """Its Close came."""
        self.was_closed = False
        """A Close was sent to it."""
        self.is_full = False
        """The other side cannot take more of it."""
        self.is_paused = self.is_turn_due = False
        self.is_gone = False
        """It was lost while frames of it still waited for their turn."""


class Tunnel:
    """One open WebSocket. The shell calls `attach`, `on_body`, `on_body_end`, `on_gone` and `pause_answer`."""

    def __init__(
        self, shared: Shared, account: Account, walk: Walk, handshake: Handshake, pinned: Pinned, status: int
    ) -> None:
        """`status`: what the client is told; 101, or 200 over HTTP/2."""
        assert walk.permit is not None
        route = walk.permit.match.route
        assert route.websocket is not None
        self._shared = shared
        self._account = account
        self._walk = walk
        self._handshake = handshake
        self._pinned = pinned
        self._status = status
        self._bounds = route.websocket
        now_s = self._last_s = shared.loop.time()
        self._client = _Side(self._bounds, now_s, is_masked=True)
        self._upstream = _Side(self._bounds, now_s, is_masked=False)
        self._first: Frame | None = None
        """The first Close, whoever sent it."""
        self._close_by_s = 0.0
        self._is_over = False
        self._wire: Wire
        self._known: set[Tunnel]
        self._stream = UpstreamStream(pinned.connection, self)

    # -- from the shell -------------------------------------------------------------------------

    def attach(self, wire: Wire, rest: bytes, known: set[Tunnel]) -> None:
        """The client was told; `rest` is what the upstream sent behind its 101. `known` is the front's, until the end."""
        self._wire = wire
        self._known = known
        known.add(self)
        if rest:
            self.on_upstream_bytes(rest)

    def on_body(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._is_over:
            return
        self._account.bytes_in += len(data)
        frames, violation = self._judge(self._client, self._upstream, data)
        self._stream.write(b"".join([encode(frame, os.urandom(4)) for frame in frames]))
        self._keep_turns(self._client)
        if violation is not None:
            words = replace(Ending.VIOLATION.value, client=closing(violation.code, "protocol violation"))
            self._end(words, MalformedRequest(violation.rule))
        elif self._client.has_closed and self._upstream.has_closed:
            self._finish(None, None)

    def on_body_end(self) -> None:
        """The client sends no more: as good as gone, since half a WebSocket is none (RFC 6455 §7.1.1)."""
        self.on_gone()

    def on_gone(self, error: RuledError | None = None) -> None:
        """The client's connection is lost, or was cut because of `error`."""
        if self._is_over:
            return
        if self._client.reader.is_behind and error is None:
            self._client.is_gone = True
            return
        if self._first is None:
            self._stream.abort()
            self._finish("client-gone", error)
        else:
            self._end(Ending.LOST.value, None)

    def pause_answer(self, *, is_paused: bool) -> None:
        """The client cannot take more at the moment (or can again)."""
        if not self._is_over:
            self._upstream.is_full = is_paused
            self._pause(self._upstream)

    # -- from the upstream (StreamReceiver) -------------------------------------------------------

    def on_upstream_bytes(self, data: bytes) -> None:
        if self._is_over:
            return
        frames, violation = self._judge(self._upstream, self._client, data)
        for frame in frames:
            self._send(frame)
        self._keep_turns(self._upstream)
        if violation is not None:
            words = replace(Ending.LOST.value, upstream=closing(violation.code, "protocol violation"))
            self._end(words, UpstreamProtocolError(violation.rule))
        elif self._client.has_closed and self._upstream.has_closed:
            self._finish(None, None)
        else:
            self._wire.flush()

    def on_upstream_lost(self) -> None:
        if self._upstream.reader.is_behind:
            self._upstream.is_gone = True
        elif not self._is_over and not self._upstream.has_closed:  # else the client's Close is awaited
            self._end(Ending.LOST.value, UpstreamProtocolError("upstream-truncated"))

    def on_upstream_paused(self, *, is_paused: bool) -> None:
        if not self._is_over:
            self._client.is_full = is_paused
            self._pause(self._client)

    # -- frames ---------------------------------------------------------------------------------

    def _judge(self, side: _Side, other: _Side, data: bytes) -> tuple[list[Frame], Violation | None]:
        """What may be passed on, and what is wrong behind it."""
        now_s = self._last_s = self._shared.loop.time()
        passed: list[Frame] = []
        for frame in side.reader.feed(data, FRAMES_AT_ONCE):
            if isinstance(frame, Violation):
                return passed, frame
            if frame.is_control and not side.pace.take(self._bounds.max_control_frames_per_s, now_s):
                return passed, Violation(1008, "control-rate")
            passed.append(frame)
            if frame.opcode == CLOSE:
                side.has_closed = other.was_closed = True
                if self._first is None:
                    self._first = frame
                    self._close_by_s = now_s + CLOSE_S
        return passed, None

    def _send(self, frame: Frame) -> None:
        raw = encode(frame, None)
        self._account.bytes_out += len(raw)
        self._wire.send_body(raw)

    # -- turns ----------------------------------------------------------------------------------

    def _keep_turns(self, side: _Side) -> None:
        """A side that said more than is judged at once is not read before the rest of it was."""
        if side.reader.is_behind and not side.is_turn_due:
            side.is_turn_due = True
            self._shared.loop.call_soon(self._go_on, side)
        if side.reader.is_behind is not side.is_paused:
            self._pause(side)

    def _go_on(self, side: _Side) -> None:
        side.is_turn_due = False
        if self._is_over:
            return
        (self.on_body if side is self._client else self.on_upstream_bytes)(b"")
        if side.is_gone and not side.reader.is_behind:
            (self.on_gone if side is self._client else self.on_upstream_lost)()

    def _pause(self, side: _Side) -> None:
        is_paused = side.is_full or side.reader.is_behind
        if is_paused is not side.is_paused:
            side.is_paused = is_paused
            pause = self._wire.pause_body if side is self._client else self._stream.pause_reading
            pause(is_paused=is_paused)

    # -- endings --------------------------------------------------------------------------------

    def cut(self, ending: Ending, error: RuledError | None = None) -> None:
        """The gateway ends it. Says so to whoever has not been told of another end."""
        if not self._is_over:
            self._end(ending.value, error)

    def revoke(self, revoked: Revoked) -> None:
        """End it if the upstream's proof rests on what is revoked: it gets not one byte more, not even a Close."""
        if not self._is_over and self._pinned.rests_on(revoked):
            self._upstream.was_closed = True
            self._stream.abort()
            self._end(Ending.IDENTITY.value, UpstreamIdentityRejected("revoked", self._pinned.facts.serial))

    def _end(self, words: _Words, error: RuledError | None) -> None:
        reason: str | None = words.reason
        if self._first is not None:  # somebody closed before: that was the end, and it is answered with itself
            words, reason, error = _Words("", self._first, self._first), None, None
        else:
            self._first = words.client
        if not self._client.was_closed:
            self._send(words.client)
        if not self._upstream.was_closed:
            self._stream.write(encode(words.upstream, os.urandom(4)))
        self._finish(reason, error)

    def _finish(self, reason: str | None, error: RuledError | None) -> None:
        self._is_over = True
        shared = self._shared
        self._known.discard(self)
        self._stream.close()
        shared.pool.release(self._pinned)
        walk = self._walk
        code = ABNORMAL if self._first is None else self._first.close_code
        to_disk = self._account.close(walk.request, walk, self._status, reason, error, close_code=code)
        wire = self._wire
        if to_disk is not None:
            shared.spawn(when_recorded(to_disk, wire.send_end, wire.flush, wire.cut))
            return
        wire.send_end()
        wire.flush()

    # -- how long it may last -------------------------------------------------------------------

    def check(self, now_s: float, wall_ns: int) -> None:
        """Called by the sweep of the front: is anything it rests on over?"""
        assert self._walk.permit is not None
        expires_ns = self._walk.permit.principal.expires_ns
        if self._is_over:
            return
        if self._close_by_s:
            if now_s > self._close_by_s:
                self._end(Ending.IDLE.value, None)
        elif expires_ns and wall_ns >= expires_ns:
            self.cut(Ending.EXPIRED)
        elif wall_ns >= self._pinned.not_after_s * 1e9:
            self.cut(Ending.IDENTITY, UpstreamIdentityRejected("expired"))
        elif now_s > self._last_s + self._bounds.idle_s:
            self.cut(Ending.IDLE)

    async def reconsider(self, gateway: Gateway) -> None:
        """Another generation decides now: go on only if it would let this begin, towards the same identity."""
        before = self._walk.permit
        assert before is not None
        try:
            for _ in range(_MAX_NEEDS):
                step = self._permit_now(gateway, time.time_ns())
                if not isinstance(step, Need):
                    break
                await step.fetch()
            else:
                raise RuntimeError("a WebSocket needs the same again and again")
            self._shared.pool.prove_again(self._pinned)
        except UpstreamIdentityRejected as exc:
            self.cut(Ending.IDENTITY, exc)
            return
        except EdgeError as exc:
            self.cut(Ending.REVOKED, exc if isinstance(exc, RuledError) else None)
            return
        except Exception as exc:  # it could not be decided: it ends
            self._shared.report(exc)
            self.cut(Ending.REVOKED)
            return
        route = step.match.route
        if route.websocket is None or route.upstream.spiffe_id != before.match.route.upstream.spiffe_id:
            self.cut(Ending.REVOKED)
            return
        self._bounds = self._client.reader.bounds = self._upstream.reader.bounds = route.websocket

    def _permit_now(self, gateway: Gateway, wall_ns: int) -> Permit | Need:
        """The steps of the line that decide about what is under way: all but budgets and limits, which counted it once.

        Raises:
            Refusal, Unavailable: it may not go on.
        """
        request, peer = self._walk.request, self._walk.peer
        match_now = match(gateway.routes, request, peer.sni)
        require_upgrade(request, match_now.route, self._handshake)
        principal = gateway.authenticator.authenticate(request, peer, match_now.route, wall_ns)
        if isinstance(principal, Need):
            return principal
        decision = gateway.authorizer.authorize(request, match_now, principal, peer, wall_ns)
        if isinstance(decision, Denial):
            raise Forbidden(decision)
        return decision
