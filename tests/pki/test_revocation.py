"""The authority's word about what is revoked: who may say it, in which spelling, and what replaces what."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.errors import StatusRejected
from pki.io_authority import Authority
from pki.io_keys import make_ec
from pki.issue import IssueRequest
from pki.revocation import FRESH_S, MAX_BYTES, Entry, Heartbeat, RevocationSet, StatusSigner
from tests.pki.conftest import Forge

ENTRY = Entry("ab" * 32, "4d", 2_000_000_000, 1_900_000_000, "keyCompromise")
OTHER = Entry("ab" * 32, "4e", 2_000_000_000, 1_900_000_000, "superseded")


@pytest.fixture
def anchors(authority: Authority) -> list[bytes]:
    return [root.public_bytes(Encoding.DER) for root in authority.roots]


@pytest.fixture
def sealed(authority: Authority, now: datetime) -> RevocationSet:
    return seal(authority, now, 7, ENTRY, OTHER)


def seal(authority: Authority, now: datetime, number: int, *entries: Entry) -> RevocationSet:
    domain = authority.trust_domain
    return RevocationSet.seal(authority.status_signer(), trust_domain=domain, number=number, entries=entries, now=now)


def parse(raw: bytes, anchors: list[bytes], now: datetime, trust_domain: str = "mesh.internal") -> RevocationSet:
    return RevocationSet.parse(raw, anchors=anchors, trust_domain=trust_domain, now=now)


def test_a_set_is_read_back_as_it_was_said(sealed: RevocationSet, anchors: list[bytes], now: datetime) -> None:
    read = parse(sealed.raw, anchors, now)
    assert read == sealed
    assert (read.number, read.revoked) == (
        7,
        frozenset({(bytes.fromhex("ab" * 32), 0x4D), (bytes.fromhex("ab" * 32), 0x4E)}),
    )


def test_P28_only_a_greater_number_supersedes(authority: Authority, sealed: RevocationSet, now: datetime) -> None:
    assert sealed.supersedes(None)
    assert seal(authority, now, 8).supersedes(sealed)
    assert [seal(authority, now, number, ENTRY).supersedes(sealed) for number in (6, 7)] == [False, False]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"number":7', b'"number":8'),
        (b'"serial":"4d"', b'"serial":"4f"'),
        (b'"trust_domain":"mesh.internal"', b'"trust_domain":"other.internal"'),
        (b"keyCompromise", b"keyCompromised"),
    ],
)
def test_a_changed_set_is_refused(
    sealed: RevocationSet, anchors: list[bytes], now: datetime, old: bytes, new: bytes
) -> None:
    assert old in sealed.raw
    with pytest.raises(StatusRejected, match="signature"):
        parse(sealed.raw.replace(old, new, 1), anchors, now)


@pytest.mark.parametrize("change", [b" %b", b"%b\n", b'{"x":1,%b'])
def test_one_spelling_only(sealed: RevocationSet, anchors: list[bytes], now: datetime, change: bytes) -> None:
    raw = change % (sealed.raw if b"{" not in change else sealed.raw[1:])
    with pytest.raises(StatusRejected):
        parse(raw, anchors, now)


@pytest.mark.parametrize("entries", [(OTHER, ENTRY), (ENTRY, ENTRY)])
def test_entries_are_sorted_and_told_once(
    authority: Authority, anchors: list[bytes], now: datetime, entries: tuple[Entry, ...]
) -> None:
    document = json.loads(seal(authority, now, 7).raw)
    body = document["body"] | {"revoked": [json.loads(_json(each)) for each in entries]}
    with pytest.raises(StatusRejected, match="spelling"):
        parse(_sign(authority.status_signer(), body), anchors, now)


@pytest.mark.parametrize("serial", ["04d", "4D", "0x4d", "-4d", ""])
def test_a_serial_has_one_spelling(authority: Authority, anchors: list[bytes], now: datetime, serial: str) -> None:
    body = json.loads(seal(authority, now, 7).raw)["body"]
    body["revoked"] = [json.loads(_json(ENTRY)) | {"serial": serial}]
    with pytest.raises(StatusRejected):
        parse(_sign(authority.status_signer(), body), anchors, now)


def test_nobody_but_the_status_key_of_a_trusted_root_speaks(
    authority: Authority, sealed: RevocationSet, anchors: list[bytes], now: datetime, forge: Forge
) -> None:
    leaf = authority.issue(IssueRequest("svc", "orders", make_ec("p256").public_key()), now)
    issuer = authority.signers["svc"][0]
    impostors = [
        StatusSigner(authority.key("svc", issuer), issuer),  # an intermediate, signed by the root too
        StatusSigner(forge.issuer.key, forge.issuer.certificate),  # below another root
    ]
    assert leaf.serial
    for impostor in impostors:
        forged = RevocationSet.seal(impostor, trust_domain="mesh.internal", number=9, entries=[], now=now)
        with pytest.raises(StatusRejected, match="signer"):
            parse(forged.raw, anchors, now)
    with pytest.raises(StatusRejected, match="signer"):
        parse(sealed.raw, [forge.root.der], now)
    with pytest.raises(StatusRejected, match="signer"):
        parse(sealed.raw, anchors, now, "other.internal")
    with pytest.raises(StatusRejected, match="valid now"):
        parse(sealed.raw, anchors, now + timedelta(days=91))


@pytest.mark.parametrize(
    ("usages", "curve", "says"),
    [
        ([ExtendedKeyUsageOID.OCSP_SIGNING], ec.SECP256R1(), None),
        ([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH], ec.SECP256R1(), "something else"),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], ec.SECP256R1(), "something else"),
        ([ExtendedKeyUsageOID.OCSP_SIGNING], ec.SECP384R1(), "not P-256"),
    ],
)
def test_the_status_key_is_for_nothing_else_and_of_one_kind(
    forge: Forge, now: datetime, usages: list[x509.ObjectIdentifier], curve: ec.EllipticCurve, says: str | None
) -> None:
    key = ec.generate_private_key(curve)
    template = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "mesh.internal"),
                 x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "status")]
            )
        )
        .issuer_name(forge.root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    )  # fmt: skip
    signer = StatusSigner(key, template.sign(forge.root.key, SHA256()))
    said = RevocationSet.seal(signer, trust_domain="mesh.internal", number=9, entries=[], now=now)
    if says is None:
        assert parse(said.raw, [forge.root.der], now).number == 9
        return
    with pytest.raises(StatusRejected, match=says):
        parse(said.raw, [forge.root.der], now)


def test_a_document_is_bounded_before_it_is_read(sealed: RevocationSet, anchors: list[bytes], now: datetime) -> None:
    with pytest.raises(StatusRejected, match="larger than"):
        parse(sealed.raw + b" " * MAX_BYTES, anchors, now)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b'{"body":{},"signer":"","signature":""}'])
def test_anything_else_is_malformed(raw: bytes, anchors: list[bytes], now: datetime) -> None:
    with pytest.raises(StatusRejected, match="malformed"):
        parse(raw, anchors, now)


def test_a_heartbeat_vouches_for_ten_seconds_and_one_set(
    authority: Authority, sealed: RevocationSet, anchors: list[bytes], now: datetime
) -> None:
    raw = Heartbeat.seal(authority.status_signer(), sealed, now).raw
    beat = Heartbeat.parse(raw, anchors=anchors, trust_domain="mesh.internal", now=now)
    assert beat.vouches_for(sealed, now + timedelta(seconds=FRESH_S))
    assert not beat.vouches_for(sealed, now + timedelta(seconds=FRESH_S + 1))
    assert beat.vouches_for(seal(authority, now, 8), now)  # published since; it holds all that the older one holds
    assert not beat.vouches_for(seal(authority, now, 6), now)
    assert not beat.vouches_for(seal(authority, now, 7, ENTRY), now)


def test_a_heartbeat_of_the_future_or_of_another_kind_is_refused(
    authority: Authority, sealed: RevocationSet, anchors: list[bytes], now: datetime
) -> None:
    ahead = Heartbeat.seal(authority.status_signer(), sealed, now + timedelta(seconds=FRESH_S + 1)).raw
    for raw in (ahead, sealed.raw):
        with pytest.raises(StatusRejected):
            Heartbeat.parse(raw, anchors=anchors, trust_domain="mesh.internal", now=now)
    beat = Heartbeat.seal(authority.status_signer(), sealed, now)
    with pytest.raises(StatusRejected):
        parse(beat.raw, anchors, now)


def _json(entry: Entry) -> bytes:
    import msgspec

    return msgspec.json.encode(entry)


def _sign(signer: StatusSigner, body: dict[str, object]) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    raw = json.dumps(body, separators=(",", ":")).encode()
    signature = b64encode(signer.key.sign(raw, ec.ECDSA(SHA256()))).decode()
    certificate = b64encode(signer.certificate.public_bytes(Encoding.DER)).decode()
    return b'{"body":%b,"signer":"%b","signature":"%b"}' % (raw, certificate.encode(), signature.encode())
