"""Certificates that an outside authority really signed, and that still prove nothing (attacks P), over real handshakes.

Here every leaf chains to the anchor that the gateway was told to believe: what refuses it is the profile, not the signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.outside import CLIENT, NOW, ORDERS, ROOT, Leaf
from tests.e2e.rogue import Rogue, refused_upstream, server_context
from tests.wire.rig import GET, Rig


class Outside(Rig):
    """The rig under `identity:`: whatever our own authority would say is not asked."""

    def prepare(self, directory: Path) -> None:
        chain, key = ROOT.sign(Leaf(uris=("spiffe://mesh.internal/gw/edge",), dns=()))
        (directory / "own").mkdir(mode=0o700)
        for name, raw in (("chain.pem", chain), ("key.pem", key), ("bundle.pem", ROOT.pem)):
            (directory / "own" / name).touch(mode=0o600)
            (directory / "own" / name).write_bytes(raw)
        text = (directory / "edge.yaml").read_text()
        public = "tls: {certificate: state/identity/public/chain.pem, key: state/identity/public/key.pem}"
        text = text.replace("hosts: [localhost, 127.0.0.1]}", f"hosts: [localhost, 127.0.0.1], {public}}}")
        identity = "{certificate: own/chain.pem, key: own/key.pem, bundle: own/bundle.pem}"
        (directory / "edge.yaml").write_text(f"{text}identity: {identity}\n")
        self.upstream.stop()  # its certificate is of the other authority


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    rig = Outside(tmp_path_factory.mktemp("outside") / "edge")
    yield rig
    assert rig.gateway.stop() == 0


def played(rig: Rig, directory: Path, made: tuple[bytes, bytes]) -> Rogue:
    return Rogue(rig.upstream.port, server_context(directory, made, client_anchors=ROOT.pem))


def test_a_good_certificate_of_the_outside_authority_is_believed(outside: Outside, tmp_path: Path) -> None:
    rogue = played(outside, tmp_path, ROOT.sign(Leaf(cn="never read")))
    try:
        with outside.client() as client:
            assert client.send(GET).answer().status == 200
        assert rogue.received.startswith(b"GET /orders/7 HTTP/1.1\r\n")
    finally:
        rogue.close()


GOOD = Leaf()


@pytest.mark.parametrize(
    ("leaf", "rule"),
    [
        (replace(GOOD, is_ca=True), "chain-untrusted"),
        (replace(GOOD, uris=("spiffe://other.internal/svc/orders",)), "trust-domain"),
        (replace(GOOD, uris=("spiffe://mesh.internal/svc/billing",)), "spiffe-id"),
        (replace(GOOD, uris=("spiffe://mesh.internal/gw/edge",)), "spiffe-id"),
        (replace(GOOD, usages=(CLIENT,)), None),
        (replace(GOOD, usages=None), "extended-key-usage"),
        (replace(GOOD, usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), None),
        (replace(GOOD, uris=(), dns=(), cn="orders.internal"), None),
        (replace(GOOD, uris=(), cn=ORDERS), "spiffe-uri"),
        (replace(GOOD, dns=("*.internal",)), "wildcard"),
        (replace(GOOD, dns=("*.svc.internal",)), "wildcard"),
        (replace(GOOD, uris=(ORDERS, "spiffe://mesh.internal/svc/billing")), "spiffe-uri"),
        (replace(GOOD, uris=(ORDERS, ORDERS)), "spiffe-uri"),
        (replace(GOOD, uris=("spiffe://Mesh.internal/svc/orders",)), "spiffe-uri"),
        (replace(GOOD, uris=("SPIFFE://mesh.internal/svc/orders",)), "spiffe-uri"),
        (replace(GOOD, uris=(ORDERS + "/",)), "spiffe-uri"),
        (replace(GOOD, uris=("spiffe://mesh.internal//svc/orders",)), "spiffe-uri"),
        (replace(GOOD, uris=("spiffe://mesh.internal/svc/%6frders",)), "spiffe-uri"),
        (replace(GOOD, uris=(ORDERS + "?x",)), "spiffe-uri"),
        (replace(GOOD, uris=(ORDERS + "#x",)), "spiffe-uri"),
        (replace(GOOD, uris=("spiffe://a@mesh.internal/svc/orders",)), "spiffe-uri"),
        (replace(GOOD, uris=("spiffe://mesh.internal:443/svc/orders",)), "spiffe-uri"),
        (replace(GOOD, uris=(ORDERS + "\x00",)), None),
        (replace(GOOD, uris=("https://mesh.internal/svc/orders",)), "spiffe-uri"),
        (replace(GOOD, begins=NOW - timedelta(days=2), ends=NOW - timedelta(days=1)), "chain-untrusted"),
        (replace(GOOD, begins=NOW + timedelta(hours=1), ends=NOW + timedelta(hours=2)), "chain-untrusted"),
        (replace(GOOD, key="p521"), "key-type"),
        (replace(GOOD, can_sign=False), None),
    ],
    ids=[
        "P02-leaf-is-ca", "P07-foreign-trust-domain", "P08-other-service", "P09-gateway", "P10-client-only",
        "P11-no-eku", "P11-any-eku", "P12-cn-only", "P12-id-in-cn", "P13-wildcard", "P13-wildcard-3-labels", "P14-two-uris",
        "P14-twice-the-same", "P15-case-of-domain", "P15-case-of-scheme", "P15-slash-at-end", "P15-two-slashes", "P15-escape",
        "P15-query", "P15-fragment", "P15-userinfo", "P15-port", "P15-nul", "P15-scheme", "P16-expired", "P17-not-yet-valid",
        "P19-p521", "key-usage",
    ],
)  # fmt: skip
def test_what_the_anchor_signed_still_has_to_be_the_service_P(
    outside: Outside, tmp_path: Path, leaf: Leaf, rule: str | None
) -> None:
    rogue = played(outside, tmp_path, ROOT.sign(leaf))
    try:
        refused_upstream(outside, rogue, "upstream-identity", None if rule is None else {rule})
    finally:
        rogue.close()
