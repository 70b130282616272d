"""RFC 7030 bodies, and when to renew."""

from __future__ import annotations

from base64 import b64decode, b64encode, encodebytes
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from pki.errors import AnswerRejected, CsrRejected
from pki.est import MAX_REQUEST_BYTES, certs_only, read_certificates, read_request, renew_when, said
from tests.pki.conftest import Forge

KEY = ec.generate_private_key(ec.SECP256R1())
CSR = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(KEY, SHA256())
DER = CSR.public_bytes(Encoding.DER)


@pytest.mark.parametrize("body", [b64encode(DER), encodebytes(DER), b"\r\n" + encodebytes(DER).replace(b"\n", b"\r\n")])
def test_base64_is_read_whatever_its_lines(body: bytes) -> None:
    assert read_request(body) == DER


def test_armour_is_passed_on_as_it_is() -> None:
    assert x509.load_pem_x509_csr(read_request(CSR.public_bytes(Encoding.PEM))) == CSR


@pytest.mark.parametrize(
    "body", [b"\xff\xff", b"not base64!", b64encode(DER)[:-1], DER, b"A" * (MAX_REQUEST_BYTES + 1)]
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(CsrRejected, match="csr-malformed"):
        read_request(body)


def test_an_answer_holds_the_certificates_and_nothing_else(forge: Forge) -> None:
    chain = [forge.issuer.der, forge.root.der]
    answer = certs_only(chain)
    assert max(map(len, answer.splitlines())) <= 76
    assert {c.public_bytes(Encoding.DER) for c in load_der_pkcs7_certificates(b64decode(answer))} == set(chain)


def test_a_certificate_of_a_version_that_there_is_not_is_no_answer(forge: Forge) -> None:
    raw = bytearray(b64decode(certs_only([forge.root.der])))
    version = raw.index(b"\xa0\x03\x02\x01\x02")
    raw[version + 4] = 5
    with pytest.raises(AnswerRejected):
        read_certificates(b64encode(raw))


@pytest.mark.parametrize("serial", [0, 1, 0xFFFF, 0x10000, (1 << 159) - 1])
def test_renewal_lies_between_two_thirds_and_three_quarters(serial: int, now: datetime) -> None:
    life = timedelta(hours=24)
    moment = renew_when(now, now + life, serial)
    assert now + life * 2 / 3 <= moment < now + life * 3 / 4
    assert moment == renew_when(now, now + life, serial)


def test_a_refusal_is_one_printable_line_whoever_says_it_E8() -> None:
    assert said(b"token: unknown\n") == "token: unknown"
    assert (
        said(b"\ntoken: \x1b]0;x\x07\xe2\x80\xae\xff\r\nready public=evil")
        == "token: \ufffd]0;x\ufffd\ufffd\ufffd\ufffd"
    )
    assert said(b"x" * 100_000) == "x" * 300
