"""Entries of the shared registry: one spelling, one signature, for one purpose and one trust domain."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from edge.registry.entry import MAX_BYTES, PURPOSE, Sealed, holder, read
from tests.edge.registry.conftest import DOMAIN, ENTRY, Signer


def unsealed(raw: bytes) -> tuple[bytes, bytes, bytes]:
    return msgspec.msgpack.decode(raw, type=tuple[bytes, bytes, bytes])


def sound(raw: bytes) -> Sealed:
    found = read(raw)
    assert found is not None
    return found


def test_what_was_sealed_is_read_and_signed(signer: Signer) -> None:
    found = sound(signer.seal())
    assert (found.unverified, found.leaf, found.is_signed(DOMAIN)) == (ENTRY, signer.leaf, True)


def test_a_signature_counts_in_its_own_trust_domain_only(signer: Signer) -> None:
    assert not sound(signer.seal()).is_signed("other.internal")
    assert not sound(signer.seal(domain="mesh")).is_signed(DOMAIN)


def test_a_signature_by_another_key_is_none(signer: Signer, stranger: Signer) -> None:
    payload, signature, _ = unsealed(stranger.seal())
    assert not sound(msgspec.msgpack.encode((payload, signature, signer.leaf))).is_signed(DOMAIN)


def test_a_signature_made_for_another_purpose_is_none(signer: Signer) -> None:
    payload, _, leaf = unsealed(signer.seal())
    bare = signer.key.sign(payload, ec.ECDSA(hashes.SHA256()))
    other = signer.key.sign(PURPOSE.replace(b"v1", b"v2") + b"mesh.internal\0" + payload, ec.ECDSA(hashes.SHA256()))
    unnamed = signer.key.sign(b"mesh.internal\0" + payload, ec.ECDSA(hashes.SHA256()))
    for signature in (bare, other, unnamed, b"", b"\x30\x00"):
        assert not sound(msgspec.msgpack.encode((payload, signature, leaf))).is_signed(DOMAIN)


def test_every_field_stands_under_the_signature(signer: Signer) -> None:
    _, signature, leaf = unsealed(signer.seal())
    changes = {
        "service": "billing", "instance": "two", "gateway": "spiffe://mesh.internal/gw/other", "sequence": 1,
        "expires_ms": 1, "gone": True, "host": "10.6.6.6", "port": 1, "weight": 9, "health_path": "/x", "draining": True,
        "since_ms": 1, "holder": (), "routes": (),
    }  # fmt: skip
    assert set(changes) == set(ENTRY.__struct_fields__)
    for field, value in changes.items():
        moved = msgspec.json.encode(msgspec.structs.replace(ENTRY, **{field: value}))
        assert not sound(msgspec.msgpack.encode((moved, signature, leaf))).is_signed(DOMAIN), field


@pytest.mark.parametrize("leaf", [b"", b"no certificate"])
def test_a_leaf_that_is_none_signs_nothing(signer: Signer, leaf: bytes) -> None:
    payload, signature, _ = unsealed(signer.seal())
    assert not sound(msgspec.msgpack.encode((payload, signature, leaf))).is_signed(DOMAIN)


def test_a_leaf_with_a_key_of_another_kind_signs_nothing(signer: Signer) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509

    key, now = ed25519.Ed25519PrivateKey.generate(), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).serial_number(1)
    builder = builder.public_key(key.public_key()).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    leaf = builder.sign(key, None).public_bytes(Encoding.DER)
    payload, _, _ = unsealed(signer.seal())
    raw = msgspec.msgpack.encode((payload, key.sign(payload), leaf))
    assert not sound(raw).is_signed(DOMAIN)


def test_there_is_one_spelling(signer: Signer) -> None:
    payload, signature, leaf = unsealed(signer.seal())
    swapped = payload.replace(b'{"service":"orders","instance":"one"', b'{"instance":"one","service":"orders"')
    assert swapped != payload
    for other in (
        swapped,
        payload + b" ",
        payload.replace(b'"port":', b'"port": '),
        payload.replace(b"9101", b"9101.0"),
    ):
        assert read(msgspec.msgpack.encode((other, signature, leaf))) is None
    raw = signer.seal()
    longer = b"\xdc\x00\x03" + raw[1:]  # the same list, its length in two bytes
    for wrong in (longer, raw + b"\0", raw[:-1], b"", b"\x93", raw * 2, b"x" * (MAX_BYTES + 1)):
        assert read(wrong) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service", "Orders"), ("service", ""), ("instance", "a/b"), ("port", 0), ("port", 65536), ("weight", 0),
        ("weight", 1001), ("sequence", -1), ("expires_ms", 1 << 63), ("holder", (("xx", "1"),)), ("holder", (("ab", "-"),)),
        ("unknown", 1), ("host", "orders.internal"), ("host", ""), ("host", "fe80::1%1"), ("health_path", "/a b"),
        ("health_path", "x"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_no_entry(signer: Signer, field: str, value: object) -> None:
    payload, signature, leaf = unsealed(signer.seal())
    written = msgspec.json.decode(payload) | {field: value}
    assert read(msgspec.msgpack.encode((msgspec.json.encode(written), signature, leaf))) is None


def test_the_holder_is_written_as_a_revocation_names_it() -> None:
    named = ((b"\xab" * 32, 0x1F),)
    assert msgspec.structs.replace(ENTRY, holder=holder(named)).certificates == named


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_none(raw: bytes) -> None:
    assert read(raw) is None
