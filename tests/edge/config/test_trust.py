"""Certificates and keys, judged at load. Attack ids are those of SECURITY.md."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.config.parse import parse
from tests.edge.config.house import EDGE, faults, sources
from tests.edge.verify.mesh import mesh, private_pem

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
GATEWAY = "spiffe://mesh.internal/gw/edge"


@cache
def key(_name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(name: str = "gateway") -> bytes:
    return key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate(uris: Sequence[str] = (GATEWAY,), usages: Sequence[x509.ObjectIdentifier] = (CLIENT, SERVER)) -> bytes:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    now = datetime(2026, 11, 21, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key("gateway").public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(key("gateway"), hashes.SHA256()).public_bytes(Encoding.PEM)


def of_version(pem: bytes, number: int) -> bytes:
    """X.509 version `number + 1`; the library has an exception of its own for those that do not exist."""
    der = b64decode(b"".join(pem.splitlines()[1:-1])).replace(
        bytes.fromhex("a003020102"), bytes((160, 3, 2, 1, number))
    )
    return b"-----BEGIN CERTIFICATE-----\n" + b64encode(der) + b"\n-----END CERTIFICATE-----\n"


OUTSIDE = EDGE.replace("API.example.com,", "").replace("]}", "], tls: {certificate: tls.pem, key: tls.key}}", 1) + (
    "identity: {certificate: gw.pem, key: gw.key, bundle: ca.pem}\n"
)


def files(gw_pem: bytes | None = None) -> dict[str, bytes]:
    pem, private = certificate(), key_pem()
    return {"tls.pem": pem, "tls.key": private, "gw.pem": gw_pem or pem, "gw.key": private, "ca.pem": pem}


def flaws(present: Mapping[str, bytes], unreadable: Mapping[str, str] | None = None) -> list[str]:
    return faults(sources(OUTSIDE, files=present, unreadable=unreadable))


def test_outside_identity_needs_no_authority_of_ours() -> None:
    present = files()
    config = parse(sources(OUTSIDE, files=present))
    assert config.identity.outside
    assert config.identity.has_server_auth
    assert (config.identity.chain, config.identity.bundle) == (present["gw.pem"], present["ca.pem"])
    assert config.listeners.public.shown[0].pairs[0].key_pem == key_pem()
    assert config.unissued == ()


def test_with_an_outside_identity_services_and_enrol_are_accepted_and_not_opened() -> None:
    listeners = 'listeners:\n  services: {bind: "127.0.0.1:0"}\n  enrol: {bind: "127.0.0.1:0"}\n'
    config = parse(sources(OUTSIDE.replace("listeners:\n", listeners, 1), files=files()))
    assert config.listeners.order[:2] == ("services", "enrol")
    assert not {"services", "enrol"} & set(config.opened)
    assert [each for each in config.warnings if "not opened" in each] == [
        "listeners.services and enrol: accepted, but not opened: with identity: there is no CA to enrol with"
    ]


def test_outside_identity_without_server_auth_is_known_as_such() -> None:
    present = files(certificate(usages=[CLIENT]))
    assert not parse(sources(OUTSIDE, files=present)).identity.has_server_auth


@pytest.mark.parametrize(
    ("uris", "usages", "said"),
    [
        ([], [CLIENT], "0 URI names where an SVID has exactly one"),
        ([GATEWAY, GATEWAY], [CLIENT], "2 URI names"),
        (["https://mesh.internal/gw/edge"], [CLIENT], "not a SPIFFE ID"),
        (["spiffe://other.internal/gw/edge"], [CLIENT], "it is of the trust domain other.internal"),
        ([GATEWAY], [SERVER], "may not be used by a TLS client"),
        ([GATEWAY], [], "may not be used by a TLS client"),
    ],
)
def test_identity_that_no_upstream_could_accept_is_refused(
    uris: list[str], usages: list[x509.ObjectIdentifier], said: str
) -> None:
    (found,) = flaws(files(certificate(uris, usages)))
    assert found.split(": ")[1:3] == ["certificate", "identity.certificate"]
    assert said in found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gw.key": key_pem("another")}, "identity.certificate: the key belongs to another certificate"),
        ({"tls.key": key_pem("another")}, "listeners.public.tls.certificate: the key belongs to another certificate"),
        ({"gw.pem": b"x"}, "identity.certificate: no certificate in PEM"),
        ({"gw.pem": b""}, "identity.certificate: no certificate in PEM"),
        ({"tls.pem": of_version(certificate(), 3)}, "listeners.public.tls.certificate: no certificate in PEM"),
        ({"gw.pem": of_version(certificate(), 9)}, "identity.certificate: no certificate in PEM"),
        ({"ca.pem": of_version(certificate(), 9)}, "identity.bundle: no certificates in PEM"),
        ({"tls.key": b"x"}, "the key is not an unencrypted private key in PEM"),
        (
            {"tls.key": key("gateway").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))},
            "the key is not an unencrypted private key in PEM",
        ),
        ({"ca.pem": b"x"}, "identity.bundle: no certificates in PEM"),
    ],
)
def test_P22_files_that_do_not_belong_together_are_refused(changed: dict[str, bytes], said: str) -> None:
    (found,) = flaws(files() | changed)
    assert said in found


@pytest.mark.parametrize("name", ["tls.pem", "tls.key", "gw.pem", "gw.key", "ca.pem"])
def test_E7_missing_file_is_one_fault_where_it_is_named(name: str) -> None:
    present = {each: raw for each, raw in files().items() if each != name}
    (found,) = flaws(present, {name: "no such file or directory"})
    assert found.split(": ")[1] == "missing-file"
    assert f"cannot read {name}: no such file or directory" in found


def test_outside_identity_needs_a_certificate_for_the_public_listener() -> None:
    edge = EDGE + "identity: {certificate: gw.pem, key: gw.key, bundle: ca.pem}\n"
    (found,) = faults(sources(edge, files=files()))
    assert "missing-key: listeners.public: with identity: no CA of ours is used" in found


def issued() -> dict[str, bytes]:
    pem, private = certificate(), key_pem()
    return {
        "state/identity/gateway/chain.pem": pem,
        "state/identity/gateway/key.pem": private,
        "state/identity/gateway/bundle.pem": pem,
        "state/identity/public/chain.pem": pem,
        "state/identity/public/key.pem": private,
    }


def test_identities_issued_by_our_authority_are_used_where_none_is_named() -> None:
    config = parse(sources(files=issued()))
    assert (config.unissued, config.identity.outside) == ((), False)
    assert config.identity.key.reveal() == config.listeners.public.shown[0].pairs[0].key_pem == key_pem()


@pytest.mark.parametrize(
    ("missing", "unissued"),
    [("gateway/chain", "gateway"), ("gateway/key", "gateway"), ("gateway/bundle", "gateway"), ("public/key", "public")],
)
def test_identity_that_is_not_issued_yet_is_named(missing: str, unissued: str) -> None:
    present = {name: raw for name, raw in issued().items() if missing not in name}
    assert parse(sources(files=present)).unissued == (unissued,)


def test_issued_identity_that_is_broken_says_which_file_to_remove() -> None:
    (found,) = faults(sources(files=issued() | {"state/identity/public/key.pem": key_pem("another")}))
    assert found == (
        "state/identity/public/chain.pem:1:1: certificate: the key belongs to another certificate; "
        "remove it; edge serve issues a new one"
    )


@pytest.mark.parametrize(("curve", "asked"), [("p384", True), ("p384", False), ("p256", True)])
def test_assertions_need_a_key_that_signs_es256(curve: str, asked: bool) -> None:
    key = ec.generate_private_key(ec.SECP384R1() if curve == "p384" else ec.SECP256R1())
    leaf = mesh().leaf(GATEWAY, "gw", key=key)
    present = files() | {"gw.pem": leaf.pem, "gw.key": private_pem(leaf)}
    more = "assertion: subject, " if asked else ""
    text = f'services: {{orders: {{{more}may_serve: ["/orders/**"], methods: [GET, POST]}}}}'
    made = sources(OUTSIDE, files=present, policies={"services.yaml": text})
    if curve == "p384" and asked:
        (fault,) = faults(made)
        assert fault.startswith("edge.yaml:7:25: certificate: identity.certificate: services.yaml asks")
    else:
        assert parse(made).grants[0].assertion == ("subject" if asked else None)
