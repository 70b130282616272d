"""What is fuzzed: every parser of bytes that somebody else wrote. Each target takes bytes, lets the errors that are ours
pass, and asserts what must hold of a value; where there is a printer, printing and parsing again changes nothing."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from edge.accept.client_hello import BadHello, HelloReader, parse_hello
from edge.authn.jwt import JwtMethod
from edge.authn.keys import KeySetUnusable
from edge.authn.keys import parse as parse_keys
from edge.authz.scan import ScanError, split, tokens
from edge.config import document
from edge.config.parse import parse as parse_config
from edge.errors import ConfigError, EdgeError
from edge.model.identity import Principal
from edge.parse import fields as request_fields
from edge.parse.http2 import translate
from edge.parse.request import build
from edge.parse.target import canonical_host, canonicalize
from examples.issuer.minting import key_set_document
from pki import csr, est
from pki.bundle import Bundle
from pki.errors import PkiError
from pki.spiffe import SpiffeId
from pki.svid import verify
from pki.tlog import checkpoint, note, proof, tiles
from tests.campaigns import fuzz_assertion, fuzz_connections
from tests.edge.accept import test_client_hello as hello
from tests.edge.authn import simulator
from tests.edge.authn.simulator import MINTER, PEER, materials, request
from tests.edge.config import house
from tests.edge.config import test_certificates as certificates
from tests.edge.config.test_trust import certificate as gateway_certificate
from tests.edge.config.test_trust import key_pem
from tests.pki.conftest import NOW, Forge, Sketch


@dataclass(frozen=True)
class Target:
    """One parser, or one connection."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    """What its language is made of."""


# -- requests ----------------------------------------------------------------------------------------


def run_path(data: bytes) -> None:
    """A canonical target is a fixed point, and names no parent."""
    for encoded_slash in (False, True):
        with suppress(EdgeError):
            target = canonicalize(data, encoded_slash=encoded_slash)
            raw = target.path.encode("ascii") + (b"?" + target.raw_query if target.has_query else b"")
            again = canonicalize(raw, encoded_slash=encoded_slash)
            assert (again.path, again.raw_query, again.has_query) == (target.path, target.raw_query, target.has_query)
            assert target.path[0] == "/"
            assert not {".", ".."} & set(target.path.split("/"))
            assert "//" not in target.path
    with suppress(EdgeError):
        host, authority = canonical_host(data)
        assert canonical_host(authority.encode()) == (host, authority)


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    for line in data.split(b"\n"):
        name, _, value = line.rpartition(b": ") if line.startswith(b":") else line.partition(b": ")
        pairs.append((name, value))
    return pairs


def run_fields(data: bytes) -> None:
    """The fields of a request, and the heads of HTTP/2 that become the same request."""
    pairs = _pairs(data)
    for protocol in ("1.0", "1.1"):
        with suppress(EdgeError):
            framing = request_fields.inspect([(name.lower(), value) for name, value in pairs], protocol)
            assert not (framing.chunked and framing.content_length is not None)
    with suppress(EdgeError):
        method, raw_target, fields = translate(pairs)
        built, _ = build(method, raw_target, "2", fields)
        assert built.path.startswith("/")
        assert not [name for name, _ in built.fields if name.startswith(b":")]


# -- tokens ------------------------------------------------------------------------------------------


@cache
def _method() -> tuple[JwtMethod, str]:
    return JwtMethod(materials()), MINTER.good("alice", ["orders:read"], exp=NOW_S + 600, iat=NOW_S, nbf=NOW_S, jti="1")


NOW_S = 1_700_000_000


def _authenticate(raw: bytes) -> Principal | None:
    method, _ = _method()
    with suppress(EdgeError):
        found = method.authenticate(request(raw), PEER, NOW_S * 10**9)
        return found if isinstance(found, Principal) else None
    return None


def run_jwt(data: bytes) -> None:
    """Any `Authorization` value. What is accepted is, byte for byte, what the issuer signed."""
    _, good = _method()
    if _authenticate(data) is not None:
        scheme, _, raw_token = data.partition(b" ")
        assert scheme.lower() == b"bearer"
        assert raw_token.strip(b" ") == good.encode()


def run_claims(data: bytes) -> None:
    """Any payload that the issuer signed, and any key set that it publishes."""
    found = _authenticate(b"Bearer " + MINTER.sign(data).encode())
    if found is not None:
        assert found.issuer == MINTER.issuer
        assert found.subject
    with suppress(KeySetUnusable):
        parse_keys(data, algorithms=("ES256", "RS256", "EdDSA"), valid_until_ns=1)


# -- files -------------------------------------------------------------------------------------------


def run_yaml(data: bytes) -> None:
    """A document is read or its faults are told, each at a place that exists; also by the tables."""
    found = document.read("a.yaml", data)
    assert found.root is not None or found.faults
    lines = data.count(b"\n") + data.count(b"\r") + 3 * data.count(b"\xe2\x80") + data.count(b"\xc2\x85") + 2
    assert all(1 <= fault.line <= lines and fault.column >= 1 for fault in found.faults)
    text = data.decode("utf-8", "replace")
    name = ("services.yaml", "limits.yaml", "routes.yaml", "")[len(data) % 4]
    changed = house.sources(policies={**_QUICK, name: text}) if name else house.sources(text, policies=_QUICK)
    with suppress(ConfigError):
        parse_config(changed)


def run_cedar(data: bytes) -> None:
    """What the scan lets through can be given to the native parser: the pieces make up the file, and no token is lost."""
    with suppress(ScanError):
        chunks = split(data)
        words = [word for _, word in tokens(data)]
        assert [word for chunk in chunks for _, word in tokens(chunk.text.encode())] == words


# -- certificates and logs ---------------------------------------------------------------------------


@cache
def _chain() -> tuple[bytes, bytes, bytes]:
    forge = Forge()
    return forge.make(Sketch(), forge.issuer).der, forge.issuer.der, forge.root.der


def run_svid(data: bytes) -> None:
    """A certificate in any place of a chain, a bundle, a signing request. Only the one that was signed proves anything."""
    leaf, issuer, root = _chain()
    expected = SpiffeId.parse("spiffe://mesh.internal/svc/orders")
    for chain in ([data, issuer], [leaf, data], [leaf, issuer, data]):
        with suppress(PkiError):
            verify(chain, anchors=[root], expected_id=expected, usage="client", now=NOW)
            assert chain[:2] == [leaf, issuer]
    for pem in (data, b"-----BEGIN CERTIFICATE-----\n" + b64encode(data) + b"\n-----END CERTIFICATE-----\n"):
        with suppress(PkiError):
            Bundle.parse(pem)
    with suppress(PkiError):
        csr.public_key(est.read_request(data), names=("orders.internal",))
    with suppress(PkiError):
        text = data.decode("latin-1")
        assert str(SpiffeId.parse(text)) == text


def run_pem(data: bytes) -> None:
    """A certificate of the public listener, and the bundle of an outside authority: valid, or a fault where it is named."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    given = certificates.edge("a.edge.test", certificates.tls("a"))
    given += "identity: {certificate: a.pem, key: key.pem, bundle: ca.pem}\n"
    for raw in (pem, data):
        with suppress(ConfigError):
            parse_config(
                house.sources(given, files={"a.pem": raw, "ca.pem": raw, "key.pem": key_pem()}, policies=_QUICK)
            )


def _pem_seeds() -> list[bytes]:
    pems = [*list(certificates.FILES.values())[:-1], gateway_certificate()]
    return [b64decode(b"".join(pem.splitlines()[1:-1])) for pem in pems] + [pems[0], key_pem()]


_QUICK = {"orders.cedar": None}
"""Compiling is not what is tried here."""


@cache
def _log() -> tuple[note.Signer, note.Verifier]:
    signer = note.Signer("mesh.internal/log", bytes(32))
    return signer, signer.verifier


def run_tlog(data: bytes) -> None:
    """Notes, checkpoints, proofs, bundles: one spelling each."""
    signer, verifier = _log()
    with suppress(PkiError):
        found = checkpoint.verify(data, verifier)
        assert checkpoint.seal(found.origin, found.size, found.root, signer).size == found.size
    with suppress(PkiError):
        text, _ = note.split(data)
        assert text.endswith(b"\n")
    with suppress(PkiError):
        origin, size, root = checkpoint.parse(data)
        sealed = checkpoint.seal(origin, size, root, signer)
        assert note.split(sealed.raw_note)[0] == data
    with suppress(PkiError):
        assert proof.parse(data).encode() == data
    with suppress(PkiError):
        assert b"".join(tiles.length_prefixed(tiles.split_entries(data))) == data


# -- handshakes --------------------------------------------------------------------------------------


def run_hello(data: bytes) -> None:
    """A ClientHello in one piece and in many is the same, or is refused the same."""
    with suppress(BadHello):
        parse_hello(data)
    seen = []
    for step in (len(data) or 1, 1, 5):
        reader, found, refused = HelloReader(), [], False
        try:
            for at in range(0, len(data), step):
                hello_found = reader.feed(data[at : at + step])
                if hello_found is not None:
                    found.append(hello_found)
        except BadHello:
            refused = True
        seen.append((found[-1:], refused))
    assert seen[1] == seen[2]
    fuzz_connections.shake_hands(data)


def _hello_seeds() -> list[bytes]:
    records = [hello.real("localhost", ("h2", "http/1.1")), hello.real(None)]
    plain = hello.body(hello.sni(b"localhost"), hello.alpn(b"h2"))
    return [*records, hello.record(hello.handshake(plain)), plain, records[0][9:]]


def _file_seeds() -> list[bytes]:
    return [text.encode() for text in (house.EDGE, house.SERVICES, house.ROUTES, house.LIMITS, LIMITS, ROUTES)]


LIMITS = (
    "limits:\n  - {name: a, match: {service: orders}, key: [subject], rate: 100/minute, on_store_failure: closed}\n"
)
ROUTES = (
    house.ROUTES
    + '  - {name: b, match: {path: "/orders/{id}/*", methods: [GET], headers: {X-A: "1"}}, public: {reason: x},\n'
)
ROUTES += "     upstream: {service: orders, strip_prefix: /orders, timeout_s: 5.5}, answer_headers: {}}\n"
CEDAR = b'@id("a") // x\npermit (principal in Edge::User::"a", action, resource) when { [1,2].contains(3) && x like "a*" };\n'


def _tlog_seeds() -> list[bytes]:
    signer, _ = _log()
    sealed = checkpoint.seal("mesh.internal/log", 7, bytes(32), signer)
    made = proof.TlogProof(3, (bytes(32), b"\1" * 32), sealed.raw_note, b"x")
    bundle = b"".join(tiles.length_prefixed([b"one", b"", b"three"]))
    return [sealed.raw_note, note.split(sealed.raw_note)[0], made.encode(), bundle]


def _svid_seeds() -> list[bytes]:
    leaf, issuer, root = _chain()
    return [leaf, issuer, root, b"spiffe://mesh.internal/svc/orders"]


def _claims_seeds() -> list[bytes]:
    keys = key_set_document(simulator.KEY)
    shape = (
        b'{"iss":"%b","aud":["%b"],"sub":"alice","client_id":"a","scope":"a b","iat":%d,"nbf":%d,"exp":%d,"jti":"1"}'
    )
    good = shape % (MINTER.issuer.encode(), MINTER.audience.encode(), NOW_S, NOW_S, NOW_S + 60)
    return [good, good[:-1] + b',"cnf":{"jkt":"x"},"roles":["a"],"tenant":"t"}', keys]


PATHS = [b"/orders/7?x=1", b"/a/b;c=d/%41%2f?%C3%A4", b"/%2e%2e/x", b"/%25%32%65", b"API.example.com:8443", b"[::1]:1"]
HEADS = [
    b"host: localhost\ncontent-length: 5\nauthorization: Bearer x\nexpect: 100-continue\nupgrade: h2c",
    b":method: GET\n:scheme: https\n:path: /orders/7?x=1\n:authority: localhost\ncookie: a=1\ncookie: b=2\nte: trailers",
    b"transfer-encoding: chunked\nhost: [::1]:8443\nx_a: 1\nconnection: close",
]
TARGETS = {
    target.name: target
    for target in (
        Target(
            "path", run_path, lambda: PATHS, (b"%2e", b"%2F", b"%00", b"..;", b"//", b"\\", b"%25", b"\xc0\xae", b"?")
        ),
        Target(
            "fields",
            run_fields,
            lambda: HEADS,
            (b"\n", b": ", b"chunked", b"content-length: ", b":path: ", b"\r", b"host: "),
        ),
        Target(
            "http1",
            fuzz_connections.run_http1,
            lambda: fuzz_connections.REQUESTS,
            (
                b"\r\n\r\n",
                b"\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Content-Length: 3\r\n",
                b"0\r\n\r\n",
                b" HTTP/1.1\r\n",
            ),
        ),
        Target(
            "h2",
            fuzz_connections.run_h2,
            lambda: fuzz_connections.STREAMS,
            (b"\0\0\4\3\0", b"\0\0\0\4\1", b"\0\0\4\x08\0", b"\x82\x87\x84", b"\0\0\0\1", b"\0\0\0\3", b"\xff\xff\xff"),
        ),
        Target(
            "websocket",
            fuzz_connections.run_websocket,
            lambda: fuzz_connections.MESSAGES,
            (b"\x81\x80", b"\x88\x82", b"\x7e", b"\x7f", b"\x00\x01", b"\xed\xa0\x80"),
        ),
        Target(
            "answer",
            fuzz_connections.run_answer,
            lambda: fuzz_connections.ANSWERS,
            (
                b"\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 \r\n",
                b"content-length: 2\r\n",
                b"transfer-encoding: chunked\r\n",
            ),
        ),
        Target(
            "jwt",
            run_jwt,
            lambda: [b"Bearer " + _method()[1].encode(), b"bearer e30.e30.AA", b"Basic x"],
            (b".", b"=", b"ey"),
        ),
        Target(
            "claims",
            run_claims,
            _claims_seeds,
            (b'"exp":', b'"aud":', b"[", b"{", b"1e999", b"null", b"\\u0000", b'"kty":"EC"'),
        ),
        Target("assertion", fuzz_assertion.run, fuzz_assertion.seeds, fuzz_assertion.WORDS),
        Target(
            "yaml",
            run_yaml,
            _file_seeds,
            (b"&a ", b"*a", b"!!", b"? ", b"- ", b": ", b"{", b"[", b"|\n", b"%YAML 1.1\n", b"---\n"),
        ),
        Target(
            "cedar",
            run_cedar,
            lambda: [CEDAR, house.CEDAR.encode()],
            (b'"', b"//", b"(", b"::", b";", b"\\u{0}", b"@id("),
        ),
        Target(
            "svid",
            run_svid,
            _svid_seeds,
            (b"\x30\x82", b"\xa0\x03\x02\x01\x02", b"\x06\x03\x55\x1d\x11", b"spiffe://", b"\x05\x00"),
        ),
        Target(
            "pem",
            run_pem,
            _pem_seeds,
            (b"\x30\x82", b"\x06\x03\x55\x1d\x11", b"\x82", b"*."),
        ),
        Target("tlog", run_tlog, _tlog_seeds, (b"\n\n", "\u2014 ".encode(), b"c2sp.org/tlog-proof@v1\n", b"=", b"0")),
        Target(
            "hello",
            run_hello,
            _hello_seeds,
            (b"\x16\x03\x01", b"\x00\x10", b"\x00\x00", b"\x02h2", b"\x01\x00\x00", b"\xff\xff"),
        ),
    )
}
