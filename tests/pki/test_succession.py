"""A bundle is believed by what was trusted before: who may say it, which roots may come, and that it never goes back."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from pki.errors import StatusRejected
from pki.io_authority import Authority
from pki.io_create import key_name, make_root
from pki.io_keys import Keyring, make_ec
from pki.issue import UPSTREAM_ROLES
from pki.revocation import RevocationSet, StatusSigner
from pki.succession import MAX_SUCCESSIONS, TrustedBundle, bundle_of, followed, number_of, succeed
from tests.pki.founding import SECRETS

DOMAIN = "mesh.internal"
Key = ec.EllipticCurvePrivateKey


@dataclass
class House:
    """An authority, roots that are none of its own, and what it would say of them."""

    authority: Authority
    now: datetime
    roots: list[tuple[x509.Certificate, Key]]
    """One after the other; the authority has none of them yet."""

    @property
    def held(self) -> bytes:
        return self.authority.bundle_pem(roles=UPSTREAM_ROLES)

    def with_roots(self, *numbers: int) -> bytes:
        return self.held + b"".join(self.roots[number][0].public_bytes(Encoding.PEM) for number in numbers)

    def says(
        self, number: int, pem: bytes, *successions: bytes, signer: StatusSigner | None = None, domain: str = DOMAIN
    ) -> bytes:
        return TrustedBundle.seal(
            signer or self.authority.status_signer(),
            trust_domain=domain,
            number=number,
            pem=pem,
            successions=successions,
            now=self.now,
        ).raw

    def takes(self, raw: bytes, *, held: bytes = b"", held_pem: bytes = b"") -> TrustedBundle:
        return followed(raw, held_pem=held_pem or self.held, held=held, trust_domain=DOMAIN, now=self.now)


@pytest.fixture
def house(authority: Authority, now: datetime) -> House:
    return House(authority, now, [make_root(DOMAIN, now) for _ in range(3)])


@pytest.fixture
def root_key(authority: Authority) -> Key:
    keyring = Keyring.open(authority.directory / "root.key", SECRETS["root"])
    return keyring.ec_key(key_name("root", authority.roots[0]))


@pytest.fixture
def own_word(house: House, root_key: Key) -> bytes:
    """The authority's root says that `roots[0]` is one."""
    return succeed(root_key, house.authority.roots[0], house.roots[0][0], DOMAIN)


def word(house: House, old: int, new: int, domain: str = DOMAIN) -> bytes:
    certificate, key = house.roots[old]
    return succeed(key, certificate, house.roots[new][0], domain)


def rule_of(house: House, raw: bytes, held: bytes = b"") -> str:
    with pytest.raises(StatusRejected) as caught:
        house.takes(raw, held=held)
    return caught.value.rule


def test_what_the_authority_says_of_its_own_roots_is_taken(house: House) -> None:
    raw = house.says(7, house.held)
    found = house.takes(raw)
    assert (found.number, found.pem, found.raw) == (7, house.held, raw)
    assert (number_of(raw), bundle_of(raw)) == (7, house.held)
    assert (number_of(b""), bundle_of(b"")) == (0, b"")


def test_a_new_root_needs_the_word_of_one_that_is_trusted(house: House, own_word: bytes) -> None:
    assert rule_of(house, house.says(7, house.with_roots(0))) == "root"
    assert house.takes(house.says(7, house.with_roots(0), own_word)).pem == house.with_roots(0)


def test_a_word_leads_on_to_the_next_in_whatever_order(house: House, own_word: bytes) -> None:
    later, latest = word(house, 0, 1), word(house, 1, 2)
    for words in ((own_word, later, latest), (latest, later, own_word)):
        assert house.takes(house.says(7, house.with_roots(2), *words)).number == 7
    assert rule_of(house, house.says(7, house.with_roots(2), own_word, latest)) == "root"  # one between is missing


def test_more_words_than_a_bundle_may_hold_are_not_read(house: House, own_word: bytes) -> None:
    words = (word(house, 1, 2),) * MAX_SUCCESSIONS
    assert rule_of(house, house.says(7, house.with_roots(0), *words, own_word)) == "root"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"edge/succession/1", b"edge/succession/2"),
        (b"mesh.internal", b"mesh.external"),
        (b'"signature":"', b'"signature":"AA'),
        (b'"signer":"', b'"signer":"!'),
        (b'{"body"', b'{"more":1,"body"'),
    ],
)
def test_a_word_that_was_changed_is_none(house: House, own_word: bytes, old: bytes, new: bytes) -> None:
    assert old in own_word
    assert rule_of(house, house.says(7, house.with_roots(0), own_word.replace(old, new, 1))) == "root"


def test_a_word_of_another_domain_or_by_a_stranger_is_none(house: House, root_key: Key) -> None:
    root, new = house.authority.roots[0], house.roots[0][0]
    for foreign in (
        succeed(root_key, root, new, "mesh.external"),
        succeed(house.roots[1][1], house.roots[1][0], new, DOMAIN),  # a root that nobody trusts
        succeed(house.roots[1][1], root, new, DOMAIN),  # in the name of one that is trusted, with another key
    ):
        assert rule_of(house, house.says(7, house.with_roots(0), foreign)) == "root"


def test_neither_the_status_key_nor_one_that_issues_brings_in_a_root(house: House) -> None:
    for role in ("status", "svc", "gw"):
        certificate = house.authority.signers[role][0]
        stolen = succeed(house.authority.key(role, certificate), certificate, house.roots[0][0], DOMAIN)
        assert rule_of(house, house.says(7, house.with_roots(0), stolen)) == "root"


def test_an_rsa_root_gives_no_word(house: House) -> None:
    """An outside authority's bundle may hold one; nothing of ours is signed by it."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    root = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, house.now, house.now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    own = json.loads(word(house, 1, 0))
    own["signer"] = b64encode(root.public_bytes(Encoding.DER)).decode()
    held = house.held + root.public_bytes(Encoding.PEM)
    with pytest.raises(StatusRejected, match="root"):
        house.takes(house.says(7, house.with_roots(0), json.dumps(own).encode()), held_pem=held)


def test_the_number_never_goes_back_and_stands_for_one_bundle(house: House, own_word: bytes) -> None:
    seven = house.says(7, house.held)
    assert rule_of(house, house.says(6, house.held), seven) == "rollback"
    assert rule_of(house, house.says(7, house.with_roots(0), own_word), seven) == "two-contents"
    assert house.takes(seven, held=seven).number == 7
    house.now += timedelta(hours=1)
    assert house.takes(house.says(7, house.held), held=seven).number == 7  # said again, by the next status key perhaps
    assert house.takes(house.says(8, house.held), held=seven).number == 8


def test_whoever_is_not_the_authority_says_nothing(house: House, authority: Authority) -> None:
    stranger = make_ec("p256")
    forged = StatusSigner(stranger, authority.status_signer().certificate)
    assert rule_of(house, house.says(7, house.held, signer=forged)) == "signature"
    gateway = authority.signers["gw"][0]
    assert rule_of(house, house.says(7, house.held, signer=StatusSigner(authority.key("gw", gateway), gateway))) == (
        "signer"
    )
    assert rule_of(house, house.says(7, house.held, domain="mesh.external")) == "trust-domain"
    assert rule_of(house, b"") == rule_of(house, b"{}") == "malformed"


def test_a_revocation_set_is_no_bundle(house: House, authority: Authority) -> None:
    other = RevocationSet.seal(authority.status_signer(), trust_domain=DOMAIN, number=9, entries=(), now=house.now)
    assert rule_of(house, other.raw) == "malformed"


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_bundle_is_not_taken_even_from_the_authority(house: House, pem: bytes) -> None:
    assert rule_of(house, house.says(7, pem)) == "malformed"
