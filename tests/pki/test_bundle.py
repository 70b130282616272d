from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki.bundle import MAX_CERTIFICATES, Bundle
from pki.errors import BundleError
from pki.io_authority import Authority


def spki(forged: Any) -> bytes:
    key = forged.certificate.public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def test_a_root_and_its_role_intermediates_are_told_apart(forge: Any) -> None:
    bundle = Bundle.parse(forge.root.pem + forge.issuer.pem)
    assert bundle == Bundle((forge.root.der,), (forge.issuer.der,), {"svc": frozenset({spki(forge.issuer)})})


def test_our_authority_names_every_role_but_edge(authority: Authority) -> None:
    bundle = Bundle.parse(authority.bundle_pem(roles=("svc", "gw", "op", "edge")))
    assert (len(bundle.anchors), len(bundle.intermediates), set(bundle.role_issuers)) == (1, 4, {"svc", "gw", "op"})


def test_two_generations_of_a_role_are_both_its_issuers(forge: Any) -> None:
    second = forge.make(replace(forge.authority, cn="svc 2", unit="svc"), forge.root)
    bundle = Bundle.parse(forge.root.pem + forge.issuer.pem + second.pem)
    assert bundle.role_issuers == {"svc": frozenset({spki(forge.issuer), spki(second)})}


def test_a_stranger_cannot_give_himself_a_role(forge: Any) -> None:
    rogue = type(forge)()
    assert Bundle.parse(forge.root.pem + rogue.issuer.pem).role_issuers == {}
    below = forge.make(replace(forge.authority, cn="below", unit="gw"), forge.issuer)
    assert "gw" not in Bundle.parse(forge.root.pem + forge.issuer.pem + below.pem).role_issuers


def test_a_claimed_root_with_a_wrong_signature_is_no_anchor(forge: Any) -> None:
    fake = forge.make(replace(forge.authority, cn="root"), signer=forge.issuer.key)
    with pytest.raises(BundleError):
        Bundle.parse(fake.pem)


def test_P23_a_leaf_does_not_become_an_anchor(forge: Any, sketch: Any) -> None:
    with pytest.raises(BundleError, match="not a CA"):
        Bundle.parse(forge.root.pem + forge.make(sketch(), forge.issuer).pem)
    with pytest.raises(BundleError, match="not a CA"):
        Bundle.parse(forge.make(sketch(cn="self")).pem)


@pytest.mark.parametrize("pem", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_bundle_is_refused(pem: bytes) -> None:
    with pytest.raises(BundleError):
        Bundle.parse(pem)


def test_a_bundle_without_root_or_with_too_much_is_refused(forge: Any) -> None:
    for pem in (forge.issuer.pem, forge.root.pem * (MAX_CERTIFICATES + 1), b"#" * (1 << 20) + forge.root.pem):
        with pytest.raises(BundleError):
            Bundle.parse(pem)


def test_a_root_of_an_unknown_curve_or_version_is_no_anchor_and_no_accident(forge: Any) -> None:
    """Found by fuzzing: the library's other exceptions came out as they were."""
    for old, new in (
        (bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce31030107")),  # a curve nobody knows
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020109")),  # X.509 version 10
        (bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")),  # an extension that comes twice
    ):
        damaged = forge.root.der.replace(old, new, 1)
        assert damaged != forge.root.der
        pem = b"-----BEGIN CERTIFICATE-----\n" + b64encode(damaged) + b"\n-----END CERTIFICATE-----\n"
        with pytest.raises(BundleError):
            Bundle.parse(pem)
