"""What may be asked of an authority from another process, and what it answers: JSON, one tagged object each way.

    {"type":"Enrol","user":"orders","password":"edge-enrol-…","request":"<base64 DER>"}
    {"type":"Certified","issued":{…},"bundle_pem":"…","root_sha256":"…"}   or   {"type":"Failed","kind":"IssueRefused",…}

Two unions, because two kinds of process ask: a worker of the gateway, which faces the network and may only pass on what
strangers say (`FromWorker`), and an operator's command, whom the kernel vouches for (`FromOperator`). No private key and no
passphrase is ever in a message.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from pki import errors
from pki.issue import IssuerRole
from pki.issued import Issued

MAX_BYTES = 160 << 10
"""Of one message; a datagram of a Unix socket takes some 200 KiB."""
_ERRORS: tuple[type[errors.PkiError], ...] = (
    errors.IssueRefused,
    errors.CsrRejected,
    errors.AuthorityLocked,
    errors.UnsafeFile,
    errors.NotRecorded,
    errors.SelfCheckFailed,
    errors.SpiffeIdError,
)
_KINDS = {kind.__name__: kind for kind in _ERRORS}


class _Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    pass


class Enrol(_Message):
    """A stranger shows a token. `request`: a signing request, DER or PEM."""

    user: str
    password: str
    request: bytes


class Renew(_Message):
    """Who showed this certificate in its handshake wants the next one."""

    certificate: bytes
    request: bytes


class EnrolListener(_Message):
    """The gateway that showed this certificate wants one for its public listener."""

    certificate: bytes
    request: bytes


class SawBundle(_Message):
    """Who showed this certificate was given this bundle: PEM with role intermediates, by its SHA-256 (hex)."""

    certificate: bytes
    bundle_sha256: str


class Issue(_Message):
    """Certify a key (SubjectPublicKeyInfo, DER). The caller has asked the policy."""

    role: IssuerRole
    name: str
    key: bytes
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    life_s: int
    requester: str


class Refuse(_Message):
    """Record that the policy refused."""

    role: IssuerRole
    name: str
    rule: str
    detail: str
    requester: str


class MakeToken(_Message):
    """A one-time token; the caller has asked the policy."""

    role: IssuerRole
    name: str
    dns: tuple[str, ...]
    life_s: int
    ttl_s: int
    requester: str


class Revoke(_Message):
    """What an identity holds, or one serial (hex) of it. Of `root`: intermediates, by their role."""

    role: IssuerRole | Literal["root"]
    name: str
    serial: str | None
    reason: str
    requester: str


class Hello(_Message):
    """Is anybody there?"""


class Show(_Message):
    """How things stand."""


class RenewOwn(_Message):
    """The gateway's own certificates; `force`: also what is fresh."""

    trust_domain: str
    hosts: tuple[str, ...]
    force: bool = False


class Advance(_Message):
    """Take a rotation one stage further if the evidence is there; `force`: also without."""

    force: bool = False


class StandAside(_Message):
    """Give up the authority's lock for a moment: an operator does something that needs the root's key."""


FromWorker = Enrol | Renew | EnrolListener | SawBundle
FromOperator = Hello | Issue | Refuse | MakeToken | Revoke | Show | RenewOwn | Advance | StandAside


class Certified(_Message):
    issued: Issued
    bundle_pem: bytes
    """Whom its holder trusts: for a gateway also the intermediates of each role."""
    root_sha256: str


class TokenMade(_Message):
    text: str
    expires_at: datetime
    root_sha256: str


class Revoked(_Message):
    serials: tuple[str, ...]
    set_number: int


class OwnRenewed(_Message):
    renewed: tuple[str, ...]
    warnings: tuple[str, ...]


class Certificate(msgspec.Struct, frozen=True):
    """One that has not ended."""

    role: str
    name: str
    serial: str
    issuer: str
    """Role and generation of the intermediate, or `root …`."""
    not_after: datetime
    state: str
    """`issued`, `revoked` (then with a reason), or `intent`."""
    reason: str
    requester: str
    is_current: bool
    """The newest of its identity."""
    bundle: int
    """Sequence of the newest bundle its identity was given; 0 when that is not known."""


class Shown(_Message):
    trust_domain: str
    root_sha256: str
    roots: tuple[tuple[str, datetime], ...]
    """(generation, end)."""
    signers: tuple[tuple[str, datetime, bool], ...]
    """(role and generation, end, whether it signs)."""
    set_number: int
    revoked: int
    bundle_sequence: int
    certificates: tuple[Certificate, ...]
    more: int
    """Certificates that are not listed here."""
    rotation: str
    """What is under way, in words; empty when nothing is."""


class Done(_Message):
    pass


class Failed(_Message):
    """One of `pki.errors`."""

    kind: str
    rule: str
    detail: str


Reply = Certified | TokenMade | Revoked | OwnRenewed | Shown | Done | Failed

_FROM_WORKER: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_FROM_OPERATOR: msgspec.json.Decoder[FromOperator] = msgspec.json.Decoder(FromOperator)
_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def failure(error: errors.PkiError) -> Failed:
    """How an error travels."""
    kind = next((kind.__name__ for kind in _ERRORS if isinstance(error, kind)), "AuthorityLocked")
    if isinstance(error, errors.RuledPkiError):
        return Failed(kind, error.rule, error.detail)
    return Failed(kind, "", str(error))


def error_of(failed: Failed) -> errors.PkiError:
    """The error that `failure` was given."""
    kind = _KINDS.get(failed.kind, errors.AuthorityLocked)
    if issubclass(kind, errors.RuledPkiError):
        return kind(failed.rule, failed.detail)
    return kind(failed.detail)


def encode(message: FromWorker | FromOperator | Reply) -> bytes:
    return msgspec.json.encode(message)


def read_reply(raw: bytes) -> Reply:
    """Raises: AuthorityLocked for what is none."""
    try:
        return _REPLIES.decode(raw)
    except msgspec.MsgspecError as error:
        raise errors.AuthorityLocked(f"the authority's process answered something unreadable: {error}") from error


def read_worker(raw: bytes) -> FromWorker | Failed:
    try:
        return _FROM_WORKER.decode(raw)
    except msgspec.MsgspecError:
        return Failed("CsrRejected", "csr-malformed", "not a request")


def read_operator(raw: bytes) -> FromOperator | Failed:
    try:
        return _FROM_OPERATOR.decode(raw)
    except msgspec.MsgspecError as error:
        return Failed("AuthorityLocked", "", f"not a request: {error}")
