"""EST as a client meets it: what is passed to the authority, and how its word comes back."""

from __future__ import annotations

import dataclasses
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from edge.control.est import SENTENCES
from edge.errors import EdgeError, NotReady, NotRecordable, Shedding
from edge.model.identity import Peer
from pki import desk
from pki.issued import Issued
from tests.edge.control.asked import asked, inside
from tests.pki.conftest import Forge

TOKEN = "edge-enrol-" + "A" * 43
PEER = Peer("127.0.0.1", 1, "127.0.0.1", None, "TLSv1.3", "")
ENROL, RENEW = "/.well-known/est/simpleenroll", "/.well-known/est/simplereenroll"


class Authority:
    """Remembers what it was asked and says what it is told to."""

    def __init__(self, reply: desk.Reply | EdgeError) -> None:
        self.reply = reply
        self.asked: list[desk.FromWorker] = []

    async def __call__(self, request: desk.FromWorker) -> desk.Reply:
        self.asked.append(request)
        if isinstance(self.reply, EdgeError):
            raise self.reply
        return self.reply


@dataclasses.dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def post(
    path: str,
    authority: Authority | None,
    body: bytes = b"AAAA",
    *,
    authorization: str | None = None,
    content_type: str = "application/pkcs10",
    peer: Peer = PEER,
    method: str = "POST",
    bundle: bytes = b"",
) -> Answer:
    within = dataclasses.replace(inside(bundle), authority=authority)
    headers = [(b"content-type", content_type.encode())]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode("latin-1")))
    listener = "services" if path == RENEW or peer.chain else "enrol"
    return Answer(*asked(listener, within, path=path, method=method, headers=headers, body=body, peer=peer))


@pytest.fixture
def certified(forge: Forge) -> desk.Certified:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    issued = Issued(
        number=1, role="svc", name="orders", names=("spiffe://mesh.internal/svc/orders",), serial_hex="ffff",
        not_before=now, not_after=now + timedelta(hours=24), leaf=forge.issuer.der, leaf_pem=b"", chain_pem=b"",
        bundle_pem=b"", intent_index=0, log_index=1, log_entry=b"", proof=b"",
    )  # fmt: skip
    return desk.Certified(issued, b"", "")


@pytest.mark.parametrize("user", ["", "orders"])
def test_a_token_is_the_password_and_the_answer_is_the_certificate_alone(
    certified: desk.Certified, forge: Forge, user: str
) -> None:
    authority = Authority(certified)
    answer = post(ENROL, authority, b"AAEC\r\n", authorization=basic(user, TOKEN))
    assert authority.asked == [desk.Enrol(user, TOKEN, b"\x00\x01\x02")]
    assert (answer.status, answer.fields["content-type"]) == (200, "application/pkcs7-mime; smime-type=certs-only")
    found = load_der_pkcs7_certificates(b64decode(answer.body))
    assert [each.public_bytes(Encoding.DER) for each in found] == [forge.issuer.der]
    due = parsedate_to_datetime(answer.fields["edge-renew-after"]) - certified.issued.not_before
    assert timedelta(hours=16) <= due <= timedelta(hours=18)


@pytest.mark.parametrize("field", [None, "", "Basic", "Basic !", "Basic /w==", f"Bearer {TOKEN}", basic("orders", "")])
def test_without_a_token_nobody_is_asked(certified: desk.Certified, field: str | None) -> None:
    authority = Authority(certified)
    answer = post(ENROL, authority, authorization=field)
    assert (answer.status, authority.asked) == (401, [])
    assert answer.fields["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("path", [ENROL, RENEW])
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"!", "application/pkcs10", 400), (b"AAAA", "application/x-www-form-urlencoded", 415)],
)
def test_what_is_no_signing_request_is_not_passed_on(
    certified: desk.Certified, path: str, body: bytes, content_type: str, status: int
) -> None:
    authority = Authority(certified)
    peer = dataclasses.replace(PEER, chain=(b"leaf",)) if path == RENEW else PEER
    answer = post(path, authority, body, authorization=basic("", TOKEN), content_type=content_type, peer=peer)
    assert (answer.status, authority.asked) == (status, [])


def test_a_renewal_shows_the_certificate_of_the_handshake_and_no_other(certified: desk.Certified) -> None:
    authority = Authority(certified)
    peer = dataclasses.replace(PEER, chain=(b"leaf", b"intermediate"))
    assert post(RENEW, authority, peer=peer, authorization=basic("pay", TOKEN)).status == 200
    assert authority.asked == [desk.Renew(b"leaf", b"\x00\x00\x00")]


@pytest.mark.parametrize(
    ("kind", "rule", "status"),
    [
        ("IssueRefused", "token", 401),
        ("IssueRefused", "too-many", 429),
        ("IssueRefused", "revoked", 403),
        ("IssueRefused", "not-due", 403),
        ("IssueRefused", "name-space", 403),
        ("CsrRejected", "csr-names", 400),
    ],
)
def test_a_refusal_names_its_rule_and_nothing_else(kind: str, rule: str, status: int) -> None:
    answer = post(ENROL, Authority(desk.Failed(kind, rule, "secret detail")), authorization=basic("", TOKEN))
    assert (answer.status, answer.fields["content-type"]) == (status, "text/plain; charset=utf-8")
    assert answer.body.decode().startswith(f"{rule}: " if rule in SENTENCES else "refused: ")
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (desk.Failed("NotRecorded", "", "disk full"), NotRecordable),
        (desk.Failed("AuthorityLocked", "", "no passphrase"), NotReady),
        (desk.Failed("SelfCheckFailed", "", ""), NotReady),
        (Shedding("authority-queue"), Shedding),
        (None, NotReady),
    ],
)
def test_an_authority_that_cannot_is_a_problem_of_the_line(
    reply: desk.Reply | EdgeError | None, error: type[EdgeError]
) -> None:
    with pytest.raises(error):
        post(ENROL, None if reply is None else Authority(reply), authorization=basic("", TOKEN))


@pytest.mark.parametrize("reply", [desk.Done(), NotReady("authority-away")])
def test_who_fetches_the_bundle_with_a_certificate_is_counted_and_always_gets_it(
    forge: Forge, reply: desk.Reply | EdgeError
) -> None:
    authority, peer = Authority(reply), dataclasses.replace(PEER, chain=(b"leaf",))
    answer = post("/.well-known/est/cacerts", authority, peer=peer, method="GET", bundle=forge.root.pem)
    assert (answer.status, len(authority.asked)) == (200, 1)
    assert isinstance(authority.asked[0], desk.SawBundle)
    assert authority.asked[0].certificate == b"leaf"
    authority = Authority(reply)
    assert post("/.well-known/est/cacerts", authority, method="GET", bundle=forge.root.pem).status == 200
    assert authority.asked == []
