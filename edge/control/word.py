"""What the authority says, for gateways that joined: what is revoked, and whom to trust, as soon as it changes.

    GET /v1/authority/word, a gateway's certificate in the handshake
    200 OK   application/x-ndjson, a line now and with each heartbeat (every two seconds), at once when something changed:

    {"heartbeat":{…},"set":{…},"bundle":"-----BEGIN CERTIFICATE-----…","trusted":{…},"log":{…},
     "issued":{"<SHA-256 of a leaf>":"<proof>",…}}

`set`, `bundle` and `trusted` (the same bundle as the authority vouches for it, to be handed on) are in the first line, and
then in those in which they differ from the one before. `log` and every proof of an issuance (`pki.issuance`) are in the first
line, and then each proof that is new. All but the bundle are the authority's documents, byte by byte: who passes them on can
keep them back and not change them, and who hears nothing for ten seconds knows nothing any more. The bundle is believed
because of who answers here.

The answer ends after ten minutes, so that who listens proves who he is again.

    GET /v1/authority/revocations, a service's certificate in the handshake
    200 OK   application/json: the set alone, as the authority signed it; 304 where `If-None-Match` names it already

For services, such as a sidecar, that let gateways in: a gateway whose certificate was revoked is one of them no more. The
field `Edge-Bundle` has the tag of what the next one would be answered:

    GET /v1/authority/bundle, a service's certificate in the handshake
    200 OK   application/json: whom to trust (`pki.succession`), which no gateway can make up; 304 as above

Who names its tag has it in force: that is what a rotation waits for. A gateway that joined cannot tell the authority so, and
answers 503: who knows of another gateway asks there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import msgspec
from quart import Response, request

from edge.control import est
from edge.control.inside import Inside
from edge.errors import NotReady
from pki.succession import bundle_of

_LINES = 300
_PATIENCE_S = 0.5
"""For an authority that was not heard yet: who asks comes again."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line."""

    heartbeat: msgspec.Raw
    set: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    bundle: str | msgspec.UnsetType = msgspec.UNSET
    trusted: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    log: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    issued: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


async def authority_word(inside: Inside) -> Response:
    answer = Response(_lines(inside), content_type="application/x-ndjson")
    answer.timeout = None  # Quart's own; the route has one for silence
    return answer


async def _lines(inside: Inside) -> AsyncIterator[bytes]:
    said_set, said_bundle, said_trusted, said_issued, count = b"", "", b"", frozenset[str](), 0
    async for heartbeat, newest in inside.words():
        bundle, vouched = inside.bundle().decode("ascii"), inside.trusted()
        log, issued = inside.issued(said_issued)
        said_issued |= issued.keys()
        line = Line(
            msgspec.Raw(heartbeat),
            msgspec.Raw(newest) if newest != said_set else msgspec.UNSET,
            bundle if bundle != said_bundle else msgspec.UNSET,
            msgspec.Raw(vouched) if vouched != said_trusted else msgspec.UNSET,
            msgspec.Raw(log) if log and not count else msgspec.UNSET,
            {name: proof.decode() for name, proof in issued.items()} if issued else msgspec.UNSET,
        )
        said_set, said_bundle, said_trusted, count = newest, bundle, vouched, count + 1
        yield msgspec.json.encode(line) + b"\n"
        if count == _LINES:
            return


async def revocations(inside: Inside) -> Response:
    answer = _tagged(await _newest(inside))
    vouched = inside.trusted()
    if vouched:
        answer.headers["Edge-Bundle"] = _tag(vouched)
    return answer


async def trusted_bundle(inside: Inside) -> Response:
    vouched = inside.trusted()
    if not vouched:
        raise NotReady("no-trusted-bundle")
    answer = _tagged(vouched)
    if answer.status_code == 304:
        if inside.authority is None:
            raise NotReady("no-authority")
        if not await est.saw_bundle(inside, bundle_of(vouched)):
            raise NotReady("authority-closed")  # he comes again soon: a rotation may be waiting for him
    return answer


def _tagged(document: bytes) -> Response:
    """One of the authority's, byte by byte, or that it is known."""
    tag = _tag(document)
    is_known = request.headers.get("If-None-Match") == tag
    answer = Response(b"" if is_known else document, status=304 if is_known else 200, content_type="application/json")
    answer.headers["ETag"] = tag
    return answer


def _tag(document: bytes) -> str:
    return f'"{sha256(document).hexdigest()[:32]}"'


async def _newest(inside: Inside) -> bytes:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for _, newest in inside.words():
                return newest
    except TimeoutError:
        pass
    raise NotReady("no-revocation-set")
