"""Tokens over the public listener (attacks D): what the caller is told, that the service saw nothing, what the log says."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from edge.audit.verify import verify
from examples.issuer.minting import Minter, key_set_document, signing_key
from pki.tlog.note import Verifier
from tests.wire.rig import HEAD, Answer, Rig

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
OTHER = "https://idp2.example.com/"
POLICY = b"""\
@id("orders-read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"orders")
when { principal.scopes.contains("orders:read") };
"""
KEY, OTHER_KEY = signing_key(), signing_key()
MINTER = Minter(KEY, ISSUER, AUDIENCE)
NOW = int(time.time())


class Guarded(Rig):
    """The rig with tokens: two issuers whose keys are files, and a route that wants a scope."""

    def prepare(self, directory: Path) -> None:
        (directory / "keys.json").write_bytes(key_set_document(KEY))
        (directory / "keys2.json").write_bytes(key_set_document(OTHER_KEY))
        edge_yaml = directory / "edge.yaml"
        issuers = "".join(
            f'  - {{issuer: "{name}", audience: ["{AUDIENCE}"], algorithms: [ES256], jwks: {file}}}\n'
            for name, file in ((ISSUER, "keys.json"), (OTHER, "keys2.json"))
        )
        edge_yaml.write_text(edge_yaml.read_text() + f"issuers:\n{issuers}")
        routes = directory / "policies" / "routes.yaml"
        routes.write_text(routes.read_text().replace("public: {reason: a test without tokens}", "auth: [jwt]"))
        (directory / "policies" / "anybody.cedar").unlink()
        (directory / "policies" / "orders.cedar").write_bytes(POLICY)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    rig = Guarded(tmp_path_factory.mktemp("tokens") / "edge")
    yield rig
    rig.close()
    log = rig.gateway.directory / "state" / "log"
    assert verify(log, Verifier.parse((log / "verifier.key").read_text().strip())).ok
    leaves = b"".join(path.read_bytes() for path in log.rglob("*") if path.is_file())
    for secret in (b"Bearer ", b"eyJ", b"one-subject"):
        assert secret not in leaves  # E8, D10: no token, and no subject by name


@pytest.fixture
def rig(guarded: Guarded) -> Guarded:
    guarded.upstream.clear()
    return guarded


def ask(rig: Rig, *authorization: str, target: str = "/orders/7", more: bytes = b"") -> Answer:
    fields = b"".join(b"Authorization: %b\r\n" % value.encode() for value in authorization)
    with rig.client() as client:
        return client.send(b"GET %b HTTP/1.1\r\n" % target.encode() + HEAD + fields + more + b"\r\n").answer()


def refused_token(rig: Rig, authorization: str, rule: str | None) -> None:
    answer = ask(rig, authorization)
    assert (answer.status, answer.reason) == (401, "credential-rejected")
    assert answer.fields["www-authenticate"] == 'Bearer realm="edge", error="invalid_token"'
    assert rig.upstream.seen == b""
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.reason"], leaf["http.response.status_code"]) == ("credential-rejected", 401)
    if rule is not None:
        assert leaf["rule.id"] == rule


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_claims(**claims: Any) -> str:
    made = MINTER.claims("alice", ["orders:read"]) | claims
    return MINTER.sign({name: value for name, value in made.items() if value is not ...})


def with_header(**members: Any) -> str:
    return MINTER.sign(MINTER.claims("alice", ["orders:read"]), header=members)


def hmac_signed(algorithm: str, secret: bytes) -> str:
    claims = json.dumps(MINTER.claims("alice", ["orders:read"])).encode()
    head = json.dumps({"alg": algorithm, "typ": "at+jwt", "kid": KEY.kid}).encode()
    text = f"{encoded(head)}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def psychic() -> str:
    return MINTER.good("alice", ["orders:read"]).rpartition(".")[0] + "." + encoded(bytes(64))


def cut_signature() -> str:
    return MINTER.good("alice", ["orders:read"])[:-4]


def without_signature() -> str:
    return MINTER.good("alice", ["orders:read"]).rpartition(".")[0] + "."


def padded() -> str:
    head, claims, signature = MINTER.good("alice", ["orders:read"]).split(".")
    return f"{head}=.{claims}.{signature}"


def repeated_claim() -> str:
    plain = json.dumps(MINTER.claims("alice", ["orders:read"]))
    return MINTER.sign((plain[:-1] + ', "sub": "root"}').encode())


def repeated_claim_below() -> str:
    plain = json.dumps(MINTER.claims("alice", ["orders:read"]))
    return MINTER.sign((plain[:-1] + ', "act": {"sub": "a", "sub": "root"}}').encode())


def own_key_in_header() -> str:
    own = signing_key()
    header = {"jwk": own.as_dict(private=False), "kid": own.kid}
    return MINTER.sign(MINTER.claims("alice", ["orders:read"]), header=header, key=own)


def own_key_by_url() -> str:
    header = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/cert"}
    return MINTER.sign(MINTER.claims("alice", ["orders:read"]), header=header, key=signing_key())


def other_issuers_key() -> str:
    return MINTER.sign(MINTER.claims("alice", ["orders:read"]), header={"kid": OTHER_KEY.kid}, key=OTHER_KEY)


def changed_claims() -> str:
    head, _, signature = MINTER.good("alice", []).split(".")
    return f"{head}.{encoded(json.dumps(MINTER.claims('root', ['orders:read'])).encode())}.{signature}"


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: MINTER.expired("alice", ["orders:read"]), "expired"),
        (lambda: MINTER.for_another_audience("alice", ["orders:read"]), "audience"),
        (lambda: MINTER.of_another_issuer("alice", ["orders:read"]), "issuer"),
        (lambda: MINTER.forged("alice", ["orders:read"]), "signature"),
        (changed_claims, "signature"),
        (psychic, None),
        (cut_signature, None),
        (without_signature, None),
        (padded, None),
    ],
)
def test_bad_tokens_are_401_with_a_challenge_D8(rig: Rig, make: Callable[[], str], rule: str | None) -> None:
    refused_token(rig, f"Bearer {make()}", rule)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES384", "es256", "ES256 "]
)
def test_the_algorithm_is_not_the_token_s_to_choose_D1(rig: Rig, algorithm: str) -> None:
    refused_token(rig, f"Bearer {with_header(alg=algorithm)}", None)
    refused_token(rig, f"Bearer {MINTER.unsigned('alice', ['orders:read'])}", None)


@pytest.mark.parametrize("secret", [KEY.as_pem(private=False), key_set_document(KEY), b"", KEY.as_bytes(private=False)])
def test_a_public_key_is_no_shared_secret_D1(rig: Rig, secret: bytes) -> None:
    refused_token(rig, f"Bearer {hmac_signed('HS256', secret)}", "algorithm")


@pytest.mark.parametrize("make", [own_key_in_header, own_key_by_url, other_issuers_key])
def test_keys_come_from_the_issuer_only_D2_D6(rig: Rig, make: Callable[[], str]) -> None:
    refused_token(rig, f"Bearer {make()}", None)


@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": ["alg"]},
        {"crit": ["exp"], "exp": 1},
        {"b64": False},
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "at+jwt\u0000"},
        {"typ": ["at+jwt"]},
        {"kid": "../../etc/passwd"},
        {"kid": 7},
        {"zip": "DEF"},
        {"enc": "A256GCM", "alg": "dir"},
    ],
)
def test_headers_that_change_the_meaning_D3_D4(rig: Rig, members: dict[str, Any]) -> None:
    if members == {"zip": "DEF"}:
        assert ask(rig, f"Bearer {with_header(**members)}").status in (200, 401)  # unknown members are ignored
        return
    refused_token(rig, f"Bearer {with_header(**members)}", None)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": ...},
        {"exp": str(NOW + 600)},
        {"exp": NOW + 600.5},
        {"exp": True},
        {"exp": None},
        {"exp": -1},
        {"exp": 10**30},
        {"exp": NOW + 100_000},
        {"iat": ...},
        {"iat": NOW + 3600},
        {"nbf": NOW + 3600},
        {"nbf": "0"},
        {"aud": ...},
        {"aud": []},
        {"aud": AUDIENCE + "/"},
        {"aud": AUDIENCE.upper()},
        {"aud": [[AUDIENCE]]},
        {"aud": {AUDIENCE: 1}},
        {"iss": ISSUER[:-1]},
        {"iss": ISSUER + "x"},
        {"iss": [ISSUER]},
        {"iss": OTHER},
        {"sub": ...},
        {"sub": ""},
        {"sub": 7},
        {"sub": "alice\r\nX-Auth-Scopes: admin"},
        {"sub": "alice\u0000"},
        {"sub": "a" * 300},
        {"scope": ["orders:read"]},
        {"scope": "orders:read\torders:write"},
        {"cnf": {"jkt": "x"}},
        {"cnf": {"x5t#S256": "x"}},
        {"cnf": None},
    ],
)
def test_claims_have_one_type_and_one_meaning_D5_D8_D11(rig: Rig, claims: dict[str, Any]) -> None:
    refused_token(rig, f"Bearer {with_claims(**claims)}", None)


@pytest.mark.parametrize("make", [repeated_claim, repeated_claim_below])
def test_names_that_occur_twice_D8(rig: Rig, make: Callable[[], str]) -> None:
    refused_token(rig, f"Bearer {make()}", None)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "eyJ.eyJ.", "\u00e9.b.c", "a" * 20_000, "a.b.c.d.e", "eyJhbGciOiJub25lIn0.e30."],
)
def test_what_is_no_token_at_all_D8(rig: Rig, token: str) -> None:
    refused_token(rig, f"Bearer {token}", None)


def test_no_credential_is_another_challenge(rig: Rig) -> None:
    for values in ((), ("Basic YTpi",), ("Negotiate x",), (MINTER.good("alice", ["orders:read"]),)):
        answer = ask(rig, *values)
        assert (answer.status, answer.reason) == (401, "credential-missing")
        assert answer.fields["www-authenticate"] == 'Bearer realm="edge"'
    assert rig.upstream.seen == b""


def test_tokens_elsewhere_are_not_looked_for_D10(rig: Rig) -> None:
    token = MINTER.good("alice", ["orders:read"])
    assert ask(rig, target=f"/orders/7?access_token={token}").status == 401
    assert ask(rig, more=b"Cookie: access_token=%b\r\nX-Access-Token: %b\r\n" % ((token.encode(),) * 2)).status == 401
    assert ask(rig, f"Bearer {token}, Bearer {token}").status == 401
    assert ask(rig, f"Bearer {token}", "Bearer x").status == 400
    assert rig.upstream.seen == b""


def test_a_missing_scope_is_403_and_says_which(rig: Rig) -> None:
    answer = ask(rig, f"Bearer {MINTER.good('alice', [])}")
    assert (answer.status, answer.reason) == (403, "forbidden")
    assert 'error="insufficient_scope", scope="orders:read"' in answer.fields["www-authenticate"]
    assert rig.upstream.seen == b""
    assert rig.record(answer.fields["x-request-id"])["event.reason"] == "forbidden"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_good_token_passes_its_subject_and_not_itself(rig: Rig, scheme: str) -> None:
    token = MINTER.good("one-subject", ["orders:read"], client_id="app")
    answer = ask(rig, f"{scheme} {token}", more=b"X-Auth-Subject: root\r\nX-Auth-Roles: admin\r\n")
    assert answer.status == 200
    seen = rig.upstream.seen
    assert b"\r\nx-auth-subject: one-subject\r\n" in seen
    assert b"root" not in seen
    assert b"admin" not in seen
    assert token.encode() not in seen
    assert b"authorization" not in seen.lower()


def test_the_same_bytes_are_judged_again_when_time_has_passed_A9(rig: Rig) -> None:
    token = MINTER.good("alice", ["orders:read"], exp=int(time.time()) + 2)
    with rig.client() as client:
        raw = b"GET /orders/7 HTTP/1.1\r\n" + HEAD + b"Authorization: Bearer %b\r\n\r\n" % token.encode()
        assert client.send(raw).answer().status == 200
        assert client.send(raw).answer().status == 200
        time.sleep(2.05)
        answer = client.send(raw).answer()
        assert (answer.status, answer.reason) == (401, "credential-rejected")


def test_the_same_bytes_under_another_server_name_are_another_request_A12(rig: Rig) -> None:
    raw = b"GET /orders/7 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n\r\n" % (
        MINTER.good("alice", ["orders:read"]).encode()
    )
    with rig.client(None) as by_address:
        assert by_address.send(raw).answer().status == 200
    with rig.client("localhost") as by_name:
        assert by_name.send(raw).answer().status == 421


def test_a_key_that_left_the_set_opens_nothing_more_A9(rig: Rig) -> None:
    keys = rig.gateway.directory / "keys.json"
    before = keys.read_bytes()
    authorization = f"Bearer {MINTER.good('alice', ['orders:read'])}"
    assert ask(rig, authorization).status == 200
    new = ECKey.generate_key("P-256", parameters={"alg": "ES256", "use": "sig"}, auto_kid=True)
    keys.write_bytes(key_set_document(new))
    try:
        rig.gateway.process.send_signal(1)  # SIGHUP
        end = time.monotonic() + 5
        while ask(rig, authorization).status != 401:
            assert time.monotonic() < end
    finally:
        keys.write_bytes(before)
        rig.gateway.process.send_signal(1)
    while ask(rig, authorization).status != 200:
        assert time.monotonic() < end + 5
