"""The one object through which the line writes the access log: one leaf per request, allowed or refused.

What it decides: which facts of a request become fields, and when a flood of unauthenticated refusals is summed up
instead of written one by one. What a field looks like is `record.py`'s, where the bytes go is `ring.py`'s.

The hot path is `admit` and `complete`. Text is encoded once per object it belongs to (connection, principal, route,
upstream connection) and kept in small caches keyed by that object's identity; a request then costs one f-string and one
copy each way. The caches are cleared when full: what they hold is made again in microseconds.

Laws:
1. `admit` comes before the upstream is contacted, and its NotRecordable means it must not be (503).
2. Each slot is completed exactly once. Each refusal that got no slot is `refuse`d exactly once.
3. A refusal that cannot be recorded one by one is counted, and the count becomes a leaf (`flush_summaries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from edge.audit.flood import Flood
from edge.audit.record import (
    CAP_NAME,
    CAP_PATH,
    MAX_PREFIX,
    MAX_SUFFIX,
    AuditSettings,
    Value,
    event,
    event_end,
    pseudonym,
    second,
    text,
    texts,
)
from edge.audit.ring import LEVEL_OK, Ring
from edge.errors import NotRecordable
from edge.model.decision import Admission, Need, Permit
from edge.model.http import Request
from edge.model.identity import Peer, Principal
from edge.model.record import UpstreamFacts
from edge.model.route import Route, RouteMatch

if TYPE_CHECKING:
    from edge.audit.io_durable import Durability

SUMMARIES_PER_FLUSH = 256
CACHE_ENTRIES = 8192
CACHED_CHARACTERS = 256

_ALLOWED = '"event.type":["access","allowed"],"policy.version":"'
_DENIED = '"event.type":["access","denied"],"policy.version":"'
_K = TypeVar("_K")


class Recorder:
    """One per process, used by one thread. Owns the ring it writes to and its caches."""

    def __init__(
        self,
        ring: Ring,
        settings: AuditSettings,
        *,
        pseudonym_key: bytes,
        wall_ns: Callable[[], int],
        mono_ns: Callable[[], int],
        durability: Durability | None = None,
    ) -> None:
        """`wall_ns` and `mono_ns` are the clocks (`io_recorder.open_recorder` passes the real ones).

        `durability` is None exactly when `settings` says `standard`.
        """
        self.ring = ring
        self._key = pseudonym_key
        self._hash_paths = settings.paths == "hashed"
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._durability = durability
        self._last_id_ns = 0
        self._id_tail = ring.instance[:12]
        self._second = ("", "")
        # Encoded fragments by the identity of what they describe; each fragment ends with a comma or is empty.
        self._peers: dict[Peer, str] = {}
        self._principals: dict[Principal, str] = {}
        self._routes: dict[Route, str] = {}
        self._upstreams: dict[UpstreamFacts, str] = {}
        self._paths: dict[str, str] = {}
        self._decisions: dict[tuple[str, ...], str] = {}
        self._limits: dict[tuple[str, ...], str] = {}
        self._words: dict[str, str] = {}
        self._flood = Flood()

    def next_id(self) -> str:
        """A decision id: 28 hexadecimal digits, ordered by time within the process, unique across all of them."""
        now = self._wall_ns()
        if now <= self._last_id_ns:  # two in one tick, or the clock was set back
            now = self._last_id_ns + 1
        self._last_id_ns = now
        return "%016x%s" % (now, self._id_tail)  # noqa: UP031 - a third cheaper than an f-string, on every request

    def admit(
        self,
        decision_id: str,
        request: Request,
        peer: Peer,
        admission: Admission,
        bundle_hash: str,
        started_ns: int,
    ) -> int:
        """Take a slot for an allowed request; `started_ns` is wall-clock time since the epoch.

        Raises: NotRecordable; then 503 and the upstream is not contacted.
        """
        permit = admission.permit
        principal = permit.principal
        match = permit.match
        ring = self.ring
        digits = str(started_ns)  # 19 of them from 2001 to 2286: ten for the second, six for the microsecond
        known_s, clock = self._second
        if digits[:10] != known_s:
            clock = self._clock(digits)
        memo = request.memo
        known = memo.get(match) if memo is not None else None
        if known is not None and known[0] is permit:
            decided = known[1]
        else:
            decided = self._decided(request, permit)
            if memo is not None:
                memo[match] = (permit, decided)
        # `or`: no fragment that is asked for here is empty, so a miss is the only falsy answer.
        prefix = (
            f'"event.action":"request","event.sequence":{ring.sequence},'
            f'"@timestamp":"{clock}.{digits[10:16]}Z","event.id":"{decision_id}",'
            f'{_ALLOWED}{bundle_hash}",'
            f"{self._peers.get(peer) or self._peer(peer)}{decided}"
            f"{self._charged(admission) if admission.quotas or admission.degraded else ''}"
        ).encode("ascii")
        if len(prefix) > MAX_PREFIX:
            prefix = self._shortened(decision_id, clock, digits, _ALLOWED + bundle_hash)
        return ring.take(prefix, self._mono_ns(), reserved=principal.method != "anonymous")

    def complete(
        self,
        slot: int,
        *,
        status: int,
        reason: str | None,
        bytes_in: int,
        bytes_out: int,
        duration_ns: int,
        upstream: UpstreamFacts | None,
        rule: str | None = None,
        close_code: int | None = None,
    ) -> int:
        """Close a slot with its outcome; returns the number to await in `acked`.

        `reason` is None when the answer of the upstream was passed on, whatever its status; else the problem's reason.
        `bytes_in` and `bytes_out` count bodies; of a WebSocket, which alone has a `close_code`, its frames.
        Raises: ValueError when the slot is not open.
        """
        if reason is None:
            outcome = ',"event.outcome":"success","event.duration":'
        else:
            named = f',"rule.id":{self._word(rule)}' if rule is not None else ""
            outcome = f',"event.outcome":"failure","event.reason":{self._word(reason)}{named},"event.duration":'
        if close_code is not None:
            outcome = f',"websocket.close_code":{close_code}{outcome}'
        facts = (self._upstreams.get(upstream) or self._upstream(upstream)) if upstream is not None else "}"
        suffix = (
            f'{outcome}{duration_ns},"http.response.status_code":{status},'
            f'"http.request.body.bytes":{bytes_in},"http.response.body.bytes":{bytes_out}{facts}'
        ).encode("ascii")
        if len(suffix) > MAX_SUFFIX:
            suffix = f'{outcome}{duration_ns},"http.response.status_code":{status},"record.truncated":true}}'.encode()
        return self.ring.complete(slot, suffix)

    def refuse(
        self,
        decision_id: str,
        request: Request | None,
        peer: Peer,
        *,
        principal: Principal | None,
        match: RouteMatch | None,
        status: int,
        reason: str,
        rule: str,
        bundle_hash: str,
        started_ns: int,
        duration_ns: int,
        policies: tuple[str, ...] = (),
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> int | None:
        """Record a refusal that holds no slot: one leaf, or one more in a summary (None).

        `request` is None when the head could not be understood. Never raises: the refusal stands either way, and what
        could not be recorded by itself is counted in the summary of its prefix, reason and second.
        """
        mono_ns = self._mono_ns()
        known = principal is not None and principal.method != "anonymous"
        # What is left of a short disk belongs to authenticated traffic.
        if not known and (self.ring.level != LEVEL_OK or self._flood.is_over(peer.prefix, mono_ns // 1_000_000_000)):
            self._flood.count(peer.prefix, reason, started_ns // 1_000_000_000)
            return None
        digits, head = str(started_ns), _DENIED + bundle_hash
        clock = self._clock(digits)
        prefix = "".join(
            (
                f'"event.action":"request","event.sequence":{self.ring.sequence},',
                f'"@timestamp":"{clock}.{digits[10:16]}Z","event.id":"{decision_id}",{head}",',
                self._peers.get(peer) or self._peer(peer),
                f'"tls.client.server_name":{self._word(peer.sni)},' if peer.sni is not None else "",
                (self._principals.get(principal) or self._principal(principal)) if principal is not None else "",
                self._http(request) if request is not None else "",
                (self._routes.get(match.route) or self._route(match.route)) if match is not None else "",
                self._decisions.get(policies) or self._decision(policies),
            )
        ).encode("ascii")
        if len(prefix) > MAX_PREFIX:
            prefix = self._shortened(decision_id, clock, digits, head)
        try:
            slot = self.ring.take(prefix, mono_ns, reserved=known)
        except NotRecordable:
            self._flood.count(peer.prefix, reason, started_ns // 1_000_000_000)
            return None
        return self.complete(
            slot,
            status=status,
            reason=reason,
            rule=rule,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            duration_ns=duration_ns,
            upstream=None,
        )

    def event(self, kind: str, values: Mapping[str, Value], *, failed: str | None = None) -> int:
        """Record a thing that is not a request: `config.reload`, `process.start`, `identity.refused`, …

        `values` holds names of FIELDS. `failed` is the reason when it did not succeed. Only the writer `ca` may use
        `pki.` kinds; the notary holds that.

        Raises: NotRecordable; ValueError for an unknown family of kinds or an unknown field.
        """
        return self._write_event(kind, values, self._wall_ns(), failed)

    def flush_summaries(self, now_ns: int) -> int:
        """Write the summaries of seconds that are over; returns how many leaves. Called once a second by a timer."""
        due = self._flood.due(now_ns // 1_000_000_000, SUMMARIES_PER_FLUSH)
        for written, (key, count) in enumerate(due):
            epoch_s, prefix, reason = key
            try:
                self._write_event(
                    "log.summary", {"source.prefix": prefix, "count": count}, epoch_s * 1_000_000_000, reason
                )
            except NotRecordable:
                return written  # kept, and tried again at the next call
            self._flood.written(key)
        return len(due)

    @property
    def room(self) -> tuple[int, int]:
        """Free slots, and all."""
        return self.ring.free_slots, self.ring.slots

    def is_recordable(self) -> bool:
        """Whether authenticated traffic could be admitted now; for readiness."""
        return self.ring.is_recordable(self._mono_ns())

    def synced(self, slot: int) -> Need | None:
        """What to await before the upstream is contacted: None under `standard`, else the slot on the disk."""
        return None if self._durability is None else self._durability.synced(slot)

    def acked(self, completion: int | None) -> Need | None:
        """What to await before the last byte of the answer: None under `standard` or when the leaf is durable already.

        None for `completion` (a refusal that was summed up) needs no wait either.
        """
        if self._durability is None or completion is None or self.ring.is_acked(completion):
            return None
        return self._durability.acked(completion)

    # Fragments. Each is made once per object and ends with a comma.

    def _peer(self, peer: Peer) -> str:
        identity = "" if peer.spiffe_id is None else f'"tls.client.spiffe_id":{text(peer.spiffe_id)},'
        if peer.certificate_sha256 is not None:
            identity += f'"tls.client.hash.sha256":{text(peer.certificate_sha256, CAP_NAME)},'
        return _keep(
            self._peers,
            peer,
            f'"source.ip":{text(peer.ip, CAP_NAME)},"source.port":{peer.port},'
            f'"tls.version":{text(peer.tls_version, CAP_NAME)},"tls.cipher":{text(peer.tls_cipher, CAP_NAME)},{identity}',
        )

    def _principal(self, principal: Principal) -> str:
        parts = [f'"authentication.method":{text(principal.method, CAP_NAME)},']
        if not principal.is_anonymous:
            parts.append(f'"user.hash":"{pseudonym(self._key, principal.issuer, principal.subject)}",')
            if principal.issuer:
                parts.append(f'"jwt.iss":{text(principal.issuer)},')
            for name, value in (
                ("organization.id", principal.tenant),
                # A client that acts for itself is its own subject (RFC 9068 §5): named here, it would undo `user.hash`.
                ("oauth.client_id", principal.client_id if principal.client_id != principal.subject else None),
                ("jwt.kid", principal.jwt_kid),
            ):
                if value is not None:
                    parts.append(f'"{name}":{text(value, CAP_NAME)},')
            if principal.jwt_id is not None:
                parts.append(
                    f'"jwt.jti_hash":"{pseudonym(self._key, "jti", principal.issuer, principal.jwt_id, size=8)}",'
                )
            if principal.roles:
                parts.append(f'"user.roles":{texts(sorted(principal.roles))},')
        return _keep(self._principals, principal, "".join(parts))

    def _decided(self, request: Request, permit: Permit) -> str:
        """Who asked for what, and which policies allowed it. No comma: the last fragment that every prefix has."""
        principal, route = permit.principal, permit.match.route
        return (
            f"{self._principals.get(principal) or self._principal(principal)}{self._http(request)}"
            f"{self._routes.get(route) or self._route(route)}"
            f"{self._decisions.get(permit.policies) or self._decision(permit.policies)}"
        )

    def _http(self, request: Request) -> str:
        return (
            f'"http.version":{self._words.get(request.protocol) or self._word(request.protocol)},'
            f'"http.request.method":{self._words.get(request.method) or self._word(request.method)},'
            f'"url.domain":{self._words.get(request.host) or self._word(request.host)},'
            f"{self._paths.get(request.path) or self._path(request.path)}"
        )

    def _path(self, path: str) -> str:
        if self._hash_paths:
            return _keep_short(self._paths, path, f'"url.path_hash":"{pseudonym(self._key, "path", path, size=8)}",')
        return _keep_short(self._paths, path, f'"url.path":{text(path, CAP_PATH)},')

    def _route(self, route: Route) -> str:
        return _keep(
            self._routes, route, f'"route.name":{text(route.name, CAP_NAME)},"url.template":{text(route.pattern.text)},'
        )

    def _decision(self, policies: tuple[str, ...]) -> str:
        # No comma: the last fragment of every prefix.
        return _keep(self._decisions, policies, f'"policy.ids":{texts(policies)}')

    def _charged(self, admission: Admission) -> str:
        quotas = admission.quotas
        names = (quotas[0].limit,) if len(quotas) == 1 else tuple([quota.limit for quota in quotas])
        charged = self._limits.get(names) or _keep(self._limits, names, f',"limit.names":{texts(names)}')
        return charged + ',"limit.degraded":true' if admission.degraded else charged

    def _upstream(self, upstream: UpstreamFacts) -> str:
        return _keep(
            self._upstreams,
            upstream,
            f',"service.target.name":{text(upstream.service, CAP_NAME)},'
            f'"service.target.spiffe_id":{text(upstream.spiffe_id)},'
            f'"service.target.cert_serial":{text(upstream.serial, CAP_NAME)},'
            f'"destination.address":{text(upstream.address, CAP_NAME)},"upstream.connect_ns":{upstream.connect_ns}}}',
        )

    def _word(self, value: str) -> str:
        return self._words.get(value) or _keep_short(self._words, value, text(value))

    def _shortened(self, decision_id: str, clock: str, digits: str, head: str) -> bytes:
        """A prefix with what is needed to find the request elsewhere; only absurd names in the files lead here."""
        return (
            f'"event.action":"request","event.sequence":{self.ring.sequence},'
            f'"@timestamp":"{clock}.{digits[10:16]}Z","event.id":"{decision_id}",{head}",'
            f'"record.truncated":true'
        ).encode("ascii")

    def _clock(self, digits: str) -> str:
        """`2026-11-21T09:40:00` of a time in nanoseconds, made once a second."""
        if digits[:10] != self._second[0]:
            self._second = (digits[:10], second(int(digits[:10])))
        return self._second[1]

    def _write_event(self, kind: str, values: Mapping[str, Value], when_ns: int, failed: str | None) -> int:
        prefix = event(kind, self.ring.sequence, self.next_id(), when_ns, values)
        slot = self.ring.take(prefix, self._mono_ns(), reserved=True)
        return self.ring.complete(slot, event_end(failed))


def _keep(cache: dict[_K, str], key: _K, fragment: str) -> str:
    if len(cache) >= CACHE_ENTRIES:
        cache.clear()
    cache[key] = fragment
    return fragment


def _keep_short(cache: dict[str, str], key: str, fragment: str) -> str:
    """As `_keep`, but what strangers make long is made again each time rather than kept."""
    return _keep(cache, key, fragment) if len(key) <= CACHED_CHARACTERS else fragment
