from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pki import csr
from pki.errors import CsrRejected

KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORISED = ["spiffe://mesh.internal/svc/orders", "orders", "orders.internal"]
Change = Callable[[x509.CertificateSigningRequestBuilder], x509.CertificateSigningRequestBuilder]


def make(change: Change = lambda builder: builder, *, cn: str | None = None, key: object = KEY) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)] if cn else [])
    builder = change(x509.CertificateSigningRequestBuilder().subject_name(subject))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def rule_of(pem: bytes) -> str:
    with pytest.raises(CsrRejected) as caught:
        csr.public_key(pem, names=AUTHORISED)
    return caught.value.rule


@pytest.mark.parametrize("cn", [None, "orders", "orders.internal"])
def test_only_the_key_is_taken(cn: str | None) -> None:
    assert csr.public_key(make(cn=cn), names=AUTHORISED) == KEY.public_key()


def test_authorised_names_may_be_asked_for() -> None:
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(AUTHORISED[0]), x509.DNSName("orders.internal")]
    )
    assert csr.public_key(make(lambda b: b.add_extension(names, critical=False)), names=AUTHORISED) == KEY.public_key()


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("pay.internal"),
        x509.UniformResourceIdentifier("spiffe://mesh.internal/gw/edge"),
        x509.RFC822Name("a@b.example"),
    ],
)
def test_P34_other_names_are_refused_not_trimmed(name: x509.GeneralName) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("orders.internal"), name])
    assert rule_of(make(lambda b: b.add_extension(names, critical=False))) == "csr-names"


def test_P34_another_cn_is_refused() -> None:
    assert rule_of(make(cn="pay")) == "csr-names"


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
)
def test_P34_any_other_extension_is_refused(extension: x509.ExtensionType) -> None:
    assert rule_of(make(lambda b: b.add_extension(extension, critical=True))) == "csr-extension"


def test_P35_a_broken_signature_is_refused() -> None:
    request = x509.load_pem_x509_csr(make())
    der = bytearray(request.public_bytes(Encoding.DER))
    spki = der.index(KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    other = (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    der[spki : spki + len(other)] = other
    assert rule_of(x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)) == "csr-signature"


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())], ids=["RSA", "P-521"]
)
def test_other_keys_are_refused(key: object) -> None:
    assert rule_of(make(key=key)) == "csr-key"


@pytest.mark.parametrize(
    "pem", [b"", b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(pem: bytes) -> None:
    assert rule_of(pem) == "csr-malformed"
    assert rule_of(pem + b"#" * (16 << 10)) == "csr-malformed"


def test_a_request_is_bounded_before_it_is_read_E2() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("orders.internal")] * 1000)
    assert rule_of(make(lambda b: b.add_extension(names, critical=False))) == "csr-malformed"


def test_P34_a_version_that_there_is_not_is_no_way_out() -> None:
    """The library's own error for it is no ValueError; in the authority's process it would be the end of that."""
    der = bytearray(x509.load_pem_x509_csr(make()).public_bytes(Encoding.DER))
    version = der.index(b"\x02\x01\x00")
    for number in (1, 2, 3, 48, 127, 255):
        der[version + 2] = number
        assert rule_of(bytes(der)) == "csr-malformed"


def test_P34_a_name_of_an_odd_length_writes_no_warning() -> None:
    """Warnings are errors here, and lines on the stderr of a gateway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 65, _validate=False)]
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
        der = builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)
    assert rule_of(der) == "csr-names"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_gives_the_same_key_or_our_error(place: int, flip: int) -> None:
    pem = bytearray(make())
    pem[place % len(pem)] ^= flip
    try:
        assert csr.public_key(bytes(pem), names=AUTHORISED) == KEY.public_key()
    except CsrRejected:
        pass
