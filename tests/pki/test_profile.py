"""Rules for single certificates that no chain of `test_svid` can reach: what path validation refuses before."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki import profile
from pki.errors import SvidRejected

SERVER = ExtendedKeyUsageOID.SERVER_AUTH


def rule_of(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(SvidRejected) as caught:
        call(*arguments, **named)
    return caught.value.rule


def with_serial(forged: Any, serial: bytes) -> x509.Certificate:
    """The certificate with another serial of two bytes; its signature is not looked at here."""
    der = forged.der
    assert der.count(b"\x02\x02\x12\x34") == 1
    return x509.load_der_x509_certificate(der.replace(b"\x02\x02\x12\x34", b"\x02\x02" + serial))


def test_P20_a_negative_serial_is_refused_without_a_warning(forge: Any, sketch: Any) -> None:
    with profile.unwarned():
        certificate = with_serial(forge.make(sketch(), forge.issuer), b"\x80\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rule_of(profile.check_serial, certificate) == "serial"


def root_with(forge: Any, identifier: x509.AuthorityKeyIdentifier) -> x509.Certificate:
    """A root whose authority key identifier is `identifier`."""
    made = forge.make(replace(forge.authority, cn="root"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.certificate.subject)
        .issuer_name(made.certificate.subject)
        .public_key(made.key.public_key())
        .serial_number(7)
        .not_valid_before(made.certificate.not_valid_before_utc)
        .not_valid_after(made.certificate.not_valid_after_utc)
    )
    for each in made.certificate.extensions:
        value = identifier if isinstance(each.value, x509.AuthorityKeyIdentifier) else each.value
        builder = builder.add_extension(value, critical=each.critical)
    return builder.sign(made.key, made.certificate.signature_hash_algorithm)


@pytest.mark.parametrize(
    "identifier",
    [
        x509.AuthorityKeyIdentifier(b"\0" * 20, None, None),
        x509.AuthorityKeyIdentifier(b"\0" * 20, [x509.DNSName("a")], 7),
        x509.AuthorityKeyIdentifier(None, [x509.DNSName("a")], 7),
    ],
)
def test_a_root_with_a_loose_key_identifier_is_refused(forge: Any, identifier: x509.AuthorityKeyIdentifier) -> None:
    root = root_with(forge, identifier)
    assert rule_of(profile.check_authority, root, SERVER, is_anchor=True) == "authority-profile"


def test_a_root_needs_no_authority_key_identifier(forge: Any) -> None:
    profile.check_authority(forge.root.certificate, SERVER, is_anchor=True)


def test_a_root_with_extended_key_usage_is_refused(forge: Any) -> None:
    root = forge.make(replace(forge.authority, cn="root", usages=(SERVER,)))
    assert rule_of(profile.check_authority, root.certificate, SERVER, is_anchor=True) == "authority-profile"


def test_a_leaf_without_names_has_no_uri_and_no_host(forge: Any, sketch: Any) -> None:
    leaf = forge.make(sketch(uris=(), dns=(), cn="x"), forge.issuer).certificate
    assert profile.uri_names(leaf) == []
    assert rule_of(profile.check_host_names, leaf) == "host-name"


def test_every_rule_is_explained_in_a_sentence() -> None:
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in profile.RULES.values())
