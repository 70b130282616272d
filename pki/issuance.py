"""Is this certificate in the authority's issuance record? The evidence, and how it is verified.

The authority's log (`tlog`) holds a leaf `pki.issued` for each certificate that was handed out, by its SHA-256. Who stole an
intermediate's key can sign whatever he likes, but cannot put it there: the log's checkpoints have a key of their own. Two
kinds of files say it to gateways:

    issuance-log.json              which key signs the log's checkpoints; signed by the status key, as a revocation set is
      {"body":{"type":"edge/issuance-log/1","trust_domain":"mesh.internal","number":1,"key":"mesh.internal/ca+…"},"signer":…}
    issued/<SHA-256 of the leaf>   a C2SP tlog-proof: the leaf, its place in the log, and the checkpoint it was proven under

A proof speaks for itself and for ever, so a gateway needs only the one of the certificate before it, nothing can be rolled
back, and an old copy of all this refuses more, never less.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from pki.errors import LogError, StatusRejected, SvidRejected
from pki.revocation import Body, StatusSigner, verified
from pki.tlog import note, proof

LOG_KEY = "issuance-log.json"
ISSUED = "issued"
"""Directory of the proofs."""
RULE = "not-in-issuance-record"
_TYPE = "edge/issuance-log/1"


class _LogBody(Body, frozen=True, forbid_unknown_fields=True):
    key: str


def log_origin(trust_domain: str) -> str:
    """What the authority's log is called."""
    return f"{trust_domain}/ca"


def seal_log_key(signer: StatusSigner, trust_domain: str, key: note.Verifier) -> bytes:
    """The document that names the log's key."""
    return signer.sign(_LogBody(_TYPE, trust_domain, 1, str(key)))


def parse_log_key(raw: bytes, *, anchors: Sequence[bytes], trust_domain: str, now: datetime) -> note.Verifier:
    """The log's key, as a root of `anchors` (DER) vouches for it.

    Raises:
        StatusRejected: malformed, of another trust domain, or not signed for an anchor's authority.
    """
    body = verified(raw, _LogBody, _TYPE, anchors, trust_domain, now)
    try:
        key = note.Verifier.parse(body.key)
    except LogError as error:
        raise StatusRejected("malformed", str(error)) from error
    if key.name != log_origin(trust_domain):
        raise StatusRejected("trust-domain", f"the key of {key.name}")
    return key


def check_issued(raw: bytes, leaf_sha256: bytes, key: note.Verifier) -> None:
    """Does the proof `raw` show that the authority handed out the certificate of this digest?

    Raises:
        SvidRejected: `not-in-issuance-record`
    """
    try:
        evidence = proof.parse(raw)
        if evidence.extra is None:
            raise SvidRejected(RULE, "the proof does not hold its leaf")
        evidence.verify(evidence.extra, key)
        entry = json.loads(evidence.extra)
    except (LogError, ValueError) as error:
        raise SvidRejected(RULE, str(error)) from error
    if not isinstance(entry, dict):
        raise SvidRejected(RULE, "the leaf is no object")
    said = (entry.get("event.action"), entry.get("event.outcome"), entry.get("pki.certificate_sha256"))
    if said != ("pki.issued", "success", leaf_sha256.hex()):
        raise SvidRejected(RULE, "the leaf is not of this certificate's issuance")
