"""Certificates that prove nothing (attacks E1, P01–P21), and the rule that says so: to an upstream, and to a client.

`chain-untrusted` and `tls-handshake` are OpenSSL's refusals during the handshake; the others are those of our own profile,
the second parser, after it. Clients are told apart more finely by OpenSSL's codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.thief import ORDERS, Pair, Thief, children, tlv

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
ECDSA_SHA1 = tlv(0x30, bytes.fromhex("06072a8648ce3d0401"))
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.57264.99")
UNRECORDED = "not-in-issuance-record"


@dataclass(frozen=True)
class Case:
    """Who comes, and why he is refused: as an upstream, and as a client; None where the certificate is no attack."""

    make: Callable[[Thief], Pair]
    upstream: str | None
    client: str | None


def leaf(**changes: object) -> Callable[[Thief], Pair]:
    """One that the svc intermediate's thief signed."""
    return lambda thief: thief.chain(thief.leaf(None, **changes))


def own_root(thief: Thief) -> Pair:
    root = thief.double(thief.root)
    issuer = thief.double(thief.svc, root)
    return thief.chain(thief.leaf(issuer), issuer, root)


def below_a_leaf(thief: Thief) -> Pair:
    held = thief.leaf()
    return thief.chain(thief.leaf(held), held, thief.svc)


def below(thief: Thief, parent: str, **changes: object) -> Pair:
    issuer = thief.authority(getattr(thief, parent), **changes)
    return thief.chain(thief.leaf(issuer), issuer, thief.svc)


def other_tenant(thief: Thief) -> Pair:
    constraints = thief.svc.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    issuer = thief.authority(thief.root, unit="svc", constraints=constraints)
    return thief.chain(thief.leaf(issuer), issuer)


def of_role(role: str, **changes: object) -> Callable[[Thief], Pair]:
    def make(thief: Thief) -> Pair:
        issuer = getattr(thief, role)
        return thief.chain(thief.leaf(issuer, **changes), issuer)

    return make


def serial(content: bytes) -> Callable[[Thief], Pair]:
    def change(parts: list[bytes]) -> None:
        parts[1] = tlv(2, content)

    return lambda thief: thief.bent(change)


def sha1(thief: Thief) -> Pair:
    def change(parts: list[bytes]) -> None:
        parts[2] = ECDSA_SHA1

    return thief.bent(change, SHA1())


def repeated_extension(thief: Thief) -> Pair:
    def change(parts: list[bytes]) -> None:
        unknown = tlv(0x30, tlv(6, b"\x2a\x03\x04") + tlv(4, b"\x05\x00"))
        (extensions,) = children(parts[-1])
        parts[-1] = tlv(0xA3, tlv(0x30, b"".join([*children(extensions), unknown, unknown])))

    return thief.bent(change)


def the_same_serial(thief: Thief) -> Pair:
    return thief.chain(thief.leaf(serial=thief.svc.certificate.serial_number))


def crowd(thief: Thief) -> Pair:
    others = [thief.authority(thief.svc, cn=f"number {n}") for n in range(62)]
    return thief.chain(thief.leaf(), thief.svc, *others)


def bomb(thief: Thief) -> Pair:
    names = x509.NameConstraints([x509.DNSName(f"n{n}.internal") for n in range(1400)], None)
    issuer = thief.authority(thief.root, constraints=names)
    return thief.chain(thief.leaf(issuer, dns=tuple(f"a.n{n}.internal" for n in range(1400))), issuer)


def extension(size: int, *, critical: bool) -> Callable[[Thief], Pair]:
    return leaf(extra=(x509.UnrecognizedExtension(UNKNOWN, b"\x04\x00" + bytes(size)),), extra_critical=critical)


CASES: dict[str, Case] = {
    "P01 a root of his own with all our names": Case(own_root, "chain-untrusted", "untrusted"),
    "P02 a leaf that signs": Case(below_a_leaf, "chain-untrusted", "untrusted"),
    "P03 an issuer that may not certify": Case(
        lambda t: below(t, "root", may_certify=False), "chain-untrusted", "untrusted"
    ),
    "P04 an issuer below one of path length 0": Case(lambda t: below(t, "svc"), "chain-untrusted", "untrusted"),
    "P05 a name outside the constraints": Case(leaf(dns=("orders.example.com",)), "chain-untrusted", "untrusted"),
    "P06 such a name in the CN only": Case(
        leaf(dns=(), cn="orders.example.com", san_critical=False), UNRECORDED, "untrusted"
    ),
    "P07 of a foreign trust domain": Case(
        leaf(uris=("spiffe://evil.internal/svc/orders",)), "trust-domain", "trust-domain"
    ),
    "P08 of another tenant's intermediate": Case(other_tenant, "role-issuer", "role-issuer"),
    "P08 of another service": Case(leaf(uris=("spiffe://mesh.internal/svc/pay",)), "spiffe-id", UNRECORDED),
    "P09 the gateways' intermediate": Case(of_role("gw"), "role-issuer", "role-issuer"),
    "P09 the operators' intermediate": Case(of_role("op"), "role-issuer", "role-issuer"),
    "P09 a gateway": Case(of_role("gw", uris=("spiffe://mesh.internal/gw/edge",)), "spiffe-id", UNRECORDED),
    "P09 an operator": Case(of_role("op", uris=("spiffe://mesh.internal/op/orders",)), "spiffe-id", UNRECORDED),
    "P10 a service as a gateway": Case(leaf(uris=("spiffe://mesh.internal/gw/edge",)), "spiffe-id", "role-issuer"),
    "P10 a service as an operator": Case(leaf(uris=("spiffe://mesh.internal/op/orders",)), "spiffe-id", "role-issuer"),
    "P10 for clients only": Case(leaf(usages=(CLIENT,)), "chain-untrusted", None),
    "P10 for servers only": Case(leaf(usages=(SERVER,)), None, "extended-key-usage"),
    "P11 for nothing named": Case(leaf(usages=None), "extended-key-usage", "extended-key-usage"),
    "P11 for anything": Case(leaf(usages=(ANY,)), "chain-untrusted", "extended-key-usage"),
    "P12 by CN only": Case(leaf(uris=(), dns=(), cn="orders.internal"), "untrusted", "untrusted"),
    "P12 the identity in the CN": Case(leaf(uris=(), cn=ORDERS), "spiffe-uri", "spiffe-uri"),
    "P13 a wildcard": Case(leaf(dns=("*.internal",)), "wildcard", "wildcard"),
    "P13 a deeper wildcard": Case(leaf(dns=("*.svc.internal",)), "wildcard", "wildcard"),
    "P14 two identities": Case(leaf(uris=(ORDERS, "spiffe://mesh.internal/svc/pay")), "spiffe-uri", "spiffe-uri"),
    "P14 one identity twice": Case(leaf(uris=(ORDERS, ORDERS)), "spiffe-uri", "spiffe-uri"),
    **{
        f"P15 {name}": Case(leaf(uris=(uri,)), "spiffe-uri", "spiffe-uri")
        for name, uri in {
            "case of the domain": "spiffe://Mesh.internal/svc/orders",
            "case of the scheme": "SPIFFE://mesh.internal/svc/orders",
            "an escape": "spiffe://mesh.internal/svc/%6frders",
            "a dot segment, escaped": "spiffe://mesh.internal/svc/%2e/orders",
            "a slash at the end": ORDERS + "/",
            "two slashes": "spiffe://mesh.internal//svc/orders",
            "a user": "spiffe://a@mesh.internal/svc/orders",
            "a port": "spiffe://mesh.internal:443/svc/orders",
            "a query": ORDERS + "?x",
            "a fragment": ORDERS + "#x",
            "a NUL": ORDERS + "\x00",
            "another scheme": "https://mesh.internal/svc/orders",
        }.items()
    },
    "P15 an IDN": Case(leaf(uris=("spiffe://mesh.internal/svc/xn--rders-jua",)), "spiffe-id", UNRECORDED),
    "P16 expired": Case(
        lambda t: t.chain(t.leaf(not_before=t.now - timedelta(hours=2), not_after=t.now - timedelta(hours=1))),
        "chain-untrusted",
        "expired",
    ),
    "P17 not yet valid": Case(
        lambda t: t.chain(t.leaf(not_before=t.now + timedelta(hours=1), not_after=t.now + timedelta(hours=2))),
        "chain-untrusted",
        "not-yet-valid",
    ),
    "P18 beyond its issuer's end": Case(
        lambda t: t.chain(t.leaf(not_after=t.svc.certificate.not_valid_after_utc + timedelta(days=1))),
        UNRECORDED,
        UNRECORDED,
    ),
    "P19 RSA of 1024 bits": Case(
        lambda t: t.keyed(rsa.generate_private_key(65537, 1024)), "chain-untrusted", "key-type"
    ),
    "P19 P-521": Case(lambda t: t.keyed(ec.generate_private_key(ec.SECP521R1())), "key-type", "key-type"),
    "P19 SHA-1": Case(sha1, "chain-untrusted", "untrusted"),
    "P20 a negative serial": Case(serial(b"\x80\x01\x02"), "serial", "serial"),
    "P20 serial zero": Case(serial(b"\x00"), "serial", "serial"),
    "P20 a serial of 21 bytes": Case(serial(b"\x01" * 21), "serial", "serial"),
    "P20 a serial that is taken": Case(the_same_serial, UNRECORDED, UNRECORDED),
    "P21 an extension twice": Case(repeated_extension, "malformed", "malformed"),
    "P21 an unknown critical extension": Case(extension(0, critical=True), "chain-untrusted", "untrusted"),
    "P21 four megabytes": Case(extension(4 << 20, critical=False), "tls-handshake", "tls-handshake"),
    "P21 64 certificates": Case(crowd, "too-large", "too-large"),
    "P21 constraints by the thousand": Case(bomb, "chain-untrusted", "untrusted"),
    "E1 a NUL in a DNS name": Case(leaf(dns=("orders.internal\x00.example.com",)), "chain-untrusted", "untrusted"),
    "E1 a NUL behind the identity": Case(leaf(uris=(ORDERS + "\x00.example.com",)), "spiffe-uri", "spiffe-uri"),
    "E1 the identity as a DNS name": Case(leaf(uris=(), dns=(ORDERS,)), "chain-untrusted", "untrusted"),
    "E1 a name outside the constraints in capitals": Case(
        leaf(dns=("ORDERS.EXAMPLE.COM",)), "chain-untrusted", "untrusted"
    ),
    "E1 a wildcard above the constraints": Case(leaf(dns=("*.com",)), "chain-untrusted", "untrusted"),
    "right in everything, signed by the thief": Case(leaf(), UNRECORDED, UNRECORDED),
}
