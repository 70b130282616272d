"""What a leaf of the access log says: the closed list of fields, their encoding and their caps.

A leaf is one flat JSON object in ASCII with the names of the Elastic Common Schema (8.17), for example (one line in the log):

    {"gateway.writer":"worker-0.9f2c64aa01b7d3e8","event.action":"request","event.sequence":812,
     "@timestamp":"2026-11-21T09:40:00.123456Z","event.id":"18a7…",
     "event.type":["access","allowed"],"policy.version":"5d2a…","source.ip":"192.0.2.7","source.port":40112,
     "tls.version":"TLSv1.3","tls.cipher":"TLS_AES_128_GCM_SHA256",
     "authentication.method":"jwt","user.hash":"0c91…","jwt.iss":"https://idp.example.com/","http.version":"1.1",
     "http.request.method":"GET","url.domain":"localhost","url.path_hash":"77ab…","route.name":"orders",
     "url.template":"/orders/**","policy.ids":["orders-read"],
     "event.outcome":"success","event.duration":412034,"http.response.status_code":200,
     "http.request.body.bytes":0,"http.response.body.bytes":1024,"service.target.name":"orders", …}

Laws:

1. The first two fields are the notary's word, not the writer's: it adds `gateway.writer` and checks that
   `event.action` follows (`seal`). What a stolen worker writes is attributed to it, and `pki.` actions are the CA's.
2. A record is a *prefix* (decision) and a *suffix* (outcome); prefix + suffix is the object without its first brace.
   A prefix alone plus `UNKNOWN_SUFFIX` is a whole record too: what kill -9 leaves.
3. Everything that came from outside is escaped to printable ASCII and capped, so no record can break a line, a
   terminal or the 4 KiB slot. Never in a record: tokens, cookies, query values, bodies, raw subjects.
4. Fields are in FIELDS or they are not in the log (a test holds it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """The table `audit:` of edge.yaml."""

    origin: str
    """Name of the log in its checkpoints; `<trust_domain>/log` when the file does not say. Unique per deployment."""
    durability: Literal["standard", "strict"] = "standard"
    """`standard`: nothing waits, a power cut may cost the last 5 ms. `strict`: the slot is on the disk before the
    upstream is contacted and the leaf before the last byte of the answer."""
    checkpoint_every_s: float = 1.0
    """Seconds between signed checkpoints while records come in."""
    witnesses: tuple[str, ...] = ()
    """URLs of tlog-witness services, in the order of the file."""
    paths: Literal["hashed", "plain"] = "hashed"
    """Whether a leaf holds a keyed hash of the canonical path or the path itself. Never the query."""
    reserve_bytes: int = 64 << 20
    """Free disk kept for authenticated traffic: below twice this nothing unauthenticated is recorded one by one, below
    it nothing is admitted."""

    @property
    def is_strict(self) -> bool:
        return self.durability == "strict"


FIELDS: Mapping[str, str] = {
    "gateway.writer": "name and run of the process that wrote the record; added by the notary",
    "event.action": "`request`, or the kind of an event: config.*, process.*, log.*, identity.*, registry.*, pki.*",
    "event.sequence": "counts the records of this writer from 1 without a gap",
    "@timestamp": "when the request or event began, UTC",
    "event.id": "the decision id, also `instance` of problems and X-Request-Id",
    "event.type": "`access` with `allowed` or `denied`; of events: `change`, `info`, `error` or `denied`",
    "event.outcome": "`success`, `failure` (refused, or no answer), `unknown` (a process died before it ended)",
    "event.reason": "the reason of the problem sent downstream, or the stage an event failed in",
    "event.duration": "nanoseconds from the first byte of the head to the end",
    "rule.id": "the rule that was broken, more precise than the reason; never sent downstream",
    "policy.version": "SHA-256 of the configuration in force (bundle hash)",
    "policy.ids": "ids of the policies that decided",
    "limit.names": "limits that were charged",
    "limit.degraded": "true when the store was down and a local share decided",
    "source.ip": "address of the downstream's socket",
    "source.port": "port of the downstream's socket",
    "source.prefix": "address prefix a summary stands for",
    "tls.version": "protocol version of the downstream's connection",
    "tls.cipher": "cipher suite of the downstream's connection",
    "tls.client.server_name": "server name sent by the downstream; of refusals only, elsewhere it is `url.domain`",
    "tls.client.spiffe_id": "proven identity of the downstream's certificate",
    "tls.client.hash.sha256": "SHA-256 of the downstream's certificate",
    "authentication.method": "the method that authenticated the principal; `anonymous` on a public route",
    "user.hash": "keyed hash of issuer and subject (pseudonym)",
    "user.roles": "roles of the principal",
    "organization.id": "tenant of the principal",
    "oauth.client_id": "client the token was issued to",
    "jwt.iss": "issuer of the token",
    "jwt.kid": "id of the key that verified the token",
    "jwt.jti_hash": "keyed hash of the token's id",
    "http.version": "HTTP version of the downstream's request",
    "http.request.method": "method of the request",
    "http.request.body.bytes": "bytes of the request's body that were read",
    "websocket.close_code": "of the Close that ended a WebSocket; 1005 without a code, 1006 without a Close",
    "http.response.status_code": "status sent; 499 when it left first, 495 or 496 when its certificate was refused",
    "http.response.body.bytes": "bytes of the answer's body that were sent",
    "url.domain": "host of the request",
    "url.path_hash": "keyed hash of the canonical path (`audit.paths: hashed`)",
    "url.path": "canonical path (`audit.paths: plain`)",
    "url.template": "path pattern of the route",
    "route.name": "name of the route",
    "service.target.name": "upstream service that answered",
    "service.target.spiffe_id": "identity the upstream proved",
    "service.target.cert_serial": "serial of the upstream's certificate",
    "destination.address": "address of the upstream",
    "service.name": "the service that a registration is about",
    "service.node.name": "id of the instance",
    "service.address": "where it announces that it answers",
    "registry.gateway": "identity of the gateway that admitted it",
    "upstream.connect_ns": "what dial and handshake of the upstream connection took",
    "record.truncated": "true when optional fields were left out because the record would have been too long",
    "count": "how many requests or records this leaf stands for",
    "config.file": "the file an event is about",
    "config.previous": "bundle hash before a reload",
    "process.name": "the process an event is about",
    "process.pid": "its process id",
    "process.exit_code": "its exit code, negative for a signal",
    "log.writer": "the writer a recovery or rejection is about",
    "log.last_sequence": "the last sequence that writer used",
    "log.unknown": "slots it left open, each a leaf with outcome unknown",
    "pki.serial": "serial of a certificate",
    "pki.spiffe_id": "identity in a certificate",
    "pki.issuer": "SHA-256 of the issuer's public key",
    "pki.not_after": "end of a certificate's life",
    "pki.detail": "what was found, for the operator",
    "message": "one sentence for the operator",
}
"""Every field a leaf may have and what it means. Bytes, nanoseconds and counts are integers."""

# Caps, in bytes of encoded text. Together with the names they fit the slot (`tests/edge/audit/test_record.py`).
CAP_NAME = 96
CAP_TEXT = 256
CAP_PATH = 640
CAP_LIST = 256
MAX_PREFIX = 3072
MAX_SUFFIX = 896

UNKNOWN_SUFFIX = b',"event.outcome":"unknown"}'
_ACTION = b'"event.action":"'
_PKI = b'"event.action":"pki.'


def text(value: str, cap: int = CAP_TEXT) -> str:
    """`value` as a JSON string of printable ASCII, quotes included, at most `cap` + 2 characters; cut at a character."""
    encoded = _encode(value)
    if "\\ud" in encoded:  # beyond 16 bits, or half of such a character, which no strict JSON parser takes
        value = value.encode("utf-8", "replace").decode("utf-8")
        encoded = _encode(value)
    while len(encoded) > cap + 2:
        value = value[: min(len(value) - 1, cap * len(value) // len(encoded))]
        encoded = _encode(value)
    return encoded


def _encode(value: str) -> str:
    return encode_basestring_ascii(value).replace("\x7f", "\\u007f")


def texts(values: Sequence[str], cap: int = CAP_LIST) -> str:
    """A JSON list of strings, at most `cap` + 2 characters; what does not fit is left out from the end."""
    encoded: list[str] = []
    room = cap
    for value in values:
        item = text(value, CAP_NAME)
        room -= len(item) + 1
        if room < 0:
            break
        encoded.append(item)
    return f"[{','.join(encoded)}]"


def second(epoch_s: int) -> str:
    """`2026-11-21T09:40:00`, for a cache that is renewed once a second."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(epoch_ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    return f"{second(epoch_ns // 1_000_000_000)}.{epoch_ns % 1_000_000_000 // 1000:06d}Z"


def pseudonym(key: bytes, *parts: str, size: int = 16) -> str:
    """Keyed hash of a sequence of texts, 2 × `size` hexadecimal digits; without the key neither guessed nor linked."""
    digest = blake2b(key=key, digest_size=size)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)  # lengths: ("ab","c") is not ("a","bc")
    return digest.hexdigest()


Value = str | int | bool | Sequence[str]


def fields(values: Mapping[str, Value]) -> str:
    """`"name":value,…` of an event's own fields.

    Raises: ValueError for a name that is not in FIELDS, which is a bug of the caller.
    """
    encoded = []
    for name, value in values.items():
        if name not in FIELDS:
            raise ValueError(f"{name!r} is not a field of the access log; add it to FIELDS with its meaning")
        match value:
            case bool():
                encoded.append(f'"{name}":{"true" if value else "false"}')
            case int():
                encoded.append(f'"{name}":{value}')
            case str():
                encoded.append(f'"{name}":{text(value)}')
            case _:
                encoded.append(f'"{name}":{texts(value)}')
    return ",".join(encoded)


_EVENT_TYPES = {
    "config": "change",
    "process": "info",
    "log": "info",
    "identity": "denied",
    "registry": "change",
    "pki": "change",
}


def event(kind: str, sequence: int, event_id: str, when_ns: int, values: Mapping[str, Value]) -> bytes:
    """Prefix of a record that is not a request's; when `values` are too long they are left out and the leaf says so.

    Raises: ValueError when the kind belongs to no family of _EVENT_TYPES, or as `fields`.
    """
    event_type = _EVENT_TYPES.get(kind.partition(".")[0])
    if event_type is None:
        raise ValueError(f"{kind!r} belongs to no family of events: {', '.join(_EVENT_TYPES)}")
    prefix = (
        f'"event.action":{text(kind, CAP_NAME)},"event.sequence":{sequence},'
        f'"@timestamp":"{timestamp(when_ns)}","event.id":"{event_id}","event.type":["{event_type}"]'
    )
    own = fields(values)
    if len(prefix) + len(own) >= MAX_PREFIX:
        own = '"record.truncated":true'
    return f"{prefix},{own}".rstrip(",").encode("ascii")


def event_end(failed: str | None) -> bytes:
    """Suffix of a record that is not a request's; `failed` is the reason when it did not succeed."""
    if failed is None:
        return b',"event.outcome":"success"}'
    return f',"event.outcome":"failure","event.reason":{text(failed, CAP_NAME)}}}'.encode("ascii")


def rejection(head: bytes, sequence: int) -> bytes:
    """The leaf in place of a record its writer must not write. The same bytes each time, so that a second notary can tell
    whether the first had written it."""
    return (
        b'%b"event.action":"log.rejected","event.sequence":%d,"event.type":["error"],'
        b'"event.outcome":"failure","event.reason":"forbidden-record"}' % (head, sequence)
    )


def stamp(writer: str) -> bytes:
    """The head of every leaf of one writer (`name.run`), up to the place where the record begins."""
    return f'{{"gateway.writer":{text(writer)},'.encode("ascii")


class _Front(msgspec.Struct):
    """The two names the notary answers for, as a parser sees them that takes the last of equal names."""

    action: str = msgspec.field(name="event.action")
    writer: str = msgspec.field(name="gateway.writer")


_read_front = msgspec.json.Decoder(_Front).decode


def seal(head: bytes, writer: str, prefix: bytes, suffix: bytes, *, may_pki: bool) -> bytes | None:
    """The leaf; None when it is not one JSON object in ASCII, or says what its writer must not. `head` is `stamp`'s.

    Some parsers take the first of equal names, others the last: the first ones are checked by their place, the last
    ones by a parser of that kind, so a second `event.action` or `gateway.writer` behind the true one gains nothing.
    """
    leaf = b"".join((head, prefix, suffix))
    at = len(head)
    if not leaf.startswith(_ACTION, at) or (not may_pki and leaf.startswith(_PKI, at)) or not leaf.isascii():
        return None
    try:
        front = _read_front(leaf)
    except msgspec.MsgspecError:
        return None
    if front.writer != writer or (not may_pki and front.action.startswith("pki.")):
        return None
    return leaf
