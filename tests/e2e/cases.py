"""What a caller gets, whichever protocol it speaks, whichever worker answers it, wherever the counters are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.e2e.world import QUOTA, World
from tests.wire.h2_client import Fields
from tests.wire.rig import Answer
from tests.wire.speaker import Speaker

Case = Callable[[World, Speaker], None]


def a_good_token_passes_and_the_service_sees_who_it_is(world: World, speaker: Speaker) -> None:
    answer = world.ask(speaker, path=b"/orders/7?page=2", fields=[(b"x-auth-subject", b"root")])
    assert (answer.status, answer.body) == (200, b"ok")
    seen = world.orders.seen.lower()
    assert seen.startswith(b"get /orders/7?page=2 http/1.1\r\n")
    assert b"\r\nx-auth-subject: alice\r\n" in seen
    assert b"\r\nx-request-id: " + answer.fields["x-request-id"].encode() + b"\r\n" in seen
    assert b"root" not in seen
    assert b"authorization" not in seen
    assert world.alice.lower().encode() not in seen
    leaf = world.leaf(answer)
    assert (leaf["event.outcome"], leaf["http.version"]) == ("success", speaker.version)
    assert leaf["service.target.spiffe_id"] == "spiffe://mesh.internal/svc/orders"


# -- refusals ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """A request and what becomes of it."""

    status: int
    reason: str
    rule: str | None = None
    method: str = "GET"
    path: bytes = b"/orders/7"
    token: Callable[[World], str] = lambda world: world.alice
    fields: Fields = ()
    body: bytes | None = None
    authority: bytes = b"localhost"
    challenge: str = ""
    """Begins the WWW-Authenticate field."""


BEARER = 'Bearer realm="edge"'
INVALID = f'{BEARER}, error="invalid_token"'
READ_ONLY = ("orders:read",)

REFUSALS = {
    "no-token": Refusal(401, "credential-missing", token=lambda world: "", challenge=BEARER),
    "no-token-with-a-body": Refusal(
        401, "credential-missing", method="POST", token=lambda world: "", body=b"secret", challenge=BEARER
    ),
    "expired": Refusal(
        401,
        "credential-rejected",
        "expired",
        token=lambda world: world.around.issuer.minter.expired("alice", READ_ONLY),
        challenge=INVALID,
    ),
    "audience": Refusal(
        401,
        "credential-rejected",
        "audience",
        token=lambda world: world.around.issuer.minter.for_another_audience("alice", READ_ONLY),
        challenge=INVALID,
    ),
    "forged": Refusal(
        401,
        "credential-rejected",
        "signature",
        token=lambda world: world.around.issuer.minter.forged("alice", READ_ONLY),
        challenge=INVALID,
    ),
    "scope": Refusal(
        403,
        "forbidden",
        method="POST",
        token=lambda world: world.around.issuer.minter.good("bob", READ_ONLY),
        body=b"a secret order",
        challenge=f'{BEARER}, error="insufficient_scope", scope="orders:write"',
    ),
    "no-route": Refusal(404, "no-route", path=b"/nowhere"),
    "method": Refusal(405, "method-not-allowed", method="DELETE"),
    "host": Refusal(421, "misdirected", authority=b"elsewhere"),
    "other-name": Refusal(421, "misdirected", authority=b"127.0.0.1"),
    "dot-segment": Refusal(400, "malformed-request", "path-dot-segment", path=b"/orders/%2e%2e/admin"),
    "look-alike": Refusal(400, "malformed-request", "field-name", fields=[(b"x_auth_subject", b"root")]),
    "too-large": Refusal(
        413, "payload-too-large", method="POST", path=b"/small/7", fields=[(b"content-length", b"2000")], body=bytes(2000)
    ),
    "too-large-uncounted": Refusal(413, "payload-too-large", method="POST", path=b"/small/7", body=bytes(2000)),
    "uri": Refusal(414, "uri-too-long", path=b"/orders/" + b"a" * 9000),
    "fields": Refusal(431, "headers-too-large", "head-size", fields=[(b"x-big", b"a" * 40_000)]),
}  # fmt: skip


def refused(name: str, world: World, speaker: Speaker) -> None:
    wanted = REFUSALS[name]
    answer = world.ask(
        speaker,
        wanted.method,
        wanted.path,
        token=wanted.token(world),
        fields=wanted.fields,
        body=wanted.body,
        authority=wanted.authority,
    )
    assert answer.fields.get("www-authenticate", "").startswith(wanted.challenge)
    assert ("www-authenticate" in answer.fields) is bool(wanted.challenge)
    if wanted.status == 405:
        assert answer.fields["allow"] == "GET, HEAD, POST"
    check_refusal(world, answer, wanted.status, wanted.reason, wanted.rule)
    assert b"secret" not in world.orders.seen
    if name != "too-large-uncounted":  # how large it is shows on the way
        assert world.orders.seen == b""
    assert world.ask(speaker).status == 200  # and the caller may go on


def check_refusal(world: World, answer: Answer, status: int, reason: str, rule: str | None = None) -> None:
    """What the caller got, and what the log says."""
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["cache-control"] == "no-store"
    leaf = world.leaf(answer)
    assert (leaf["event.outcome"], leaf["event.reason"], leaf["http.response.status_code"]) == (
        "failure",
        reason,
        status,
    )
    assert rule is None or leaf["rule.id"] == rule


def a_limit_holds_over_connections_and_workers(world: World, speaker: Speaker) -> None:
    token = world.token(f"counted-{len(world.told)}")
    speakers = [world.speaker(speaker) for _ in range(QUOTA + 1)]
    answers = [world.ask(one, path=b"/counted/7", token=token) for one in speakers]
    for one in speakers:
        one.close()
    assert [answer.status for answer in answers] == [200] * QUOTA + [429]
    assert world.orders.seen.count(b"GET /counted/7 ") == QUOTA
    assert 0 < int(answers[-1].fields["retry-after"]) <= 60
    assert '"few"' in answers[-1].fields["ratelimit"]
    check_refusal(world, answers[-1], 429, "quota-exceeded")


# -- bodies ------------------------------------------------------------------------------------------


def an_upload_streams(world: World, speaker: Speaker) -> None:
    world.orders.echoes = True
    speaker.begin("POST", b"/orders/x", world.credential(), has_body=True)
    speaker.send(b"first")
    world.orders.wait_for(b"first")  # while the rest is not even there
    speaker.send(b"last")
    speaker.finish()
    answer = world.heard(speaker.answer())
    assert answer.status == 200
    assert world.leaf(answer)["http.request.body.bytes"] == 9


def a_download_streams(world: World, speaker: Speaker) -> None:
    world.orders.go_on.clear()
    world.orders.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfirstWAITlast"]
    speaker.begin("GET", b"/orders/7", world.credential())
    speaker.wait_for(b"first")  # while the service has not written the rest
    world.orders.go_on.set()
    answer = world.heard(speaker.answer())
    assert (answer.status, answer.body) == (200, b"firstlast")


def large_bodies_arrive_whole(world: World, speaker: Speaker) -> None:
    world.orders.echoes = True
    body = bytes(range(256)) * 2000
    answer = world.ask(speaker, "POST", b"/orders/x", fields=[(b"content-length", b"%d" % len(body))], body=body)
    assert (answer.status, answer.body) == (200, body)


def an_answer_of_unknown_length_arrives_whole(world: World, speaker: Speaker) -> None:
    world.orders.answers = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nset-cookie: late=1\r\n\r\n"
    ]
    answer = world.ask(speaker)
    assert (answer.status, answer.body) == (200, b"hello")
    assert "set-cookie" not in answer.fields  # trailers never become fields
    assert world.ask(speaker).body == b"ok"


def trailers_of_a_request_change_nothing(world: World, speaker: Speaker) -> None:
    token = world.around.issuer.minter.good("mallory", ["orders:read", "orders:write"])
    speaker.begin("POST", b"/orders/x", world.credential(), has_body=True)
    speaker.send(b"body")
    speaker.finish([(b"authorization", b"Bearer " + token.encode()), (b"x-auth-subject", b"mallory")])
    assert world.heard(speaker.answer()).status == 200
    assert b"\r\nx-auth-subject: alice\r\n" in world.orders.seen
    assert b"mallory" not in world.orders.seen
    assert token.encode() not in world.orders.seen


def answers_without_a_body(world: World, speaker: Speaker) -> None:
    world.orders.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"]
    head = world.ask(speaker, "HEAD")
    assert (head.status, head.fields["content-length"], head.body) == (200, "5", b"")
    assert world.ask(speaker).status == 204
    lost = world.ask(speaker, "HEAD", b"/nowhere")
    assert (lost.status, lost.body, int(lost.fields["content-length"]) > 0) == (404, b"", True)
    assert world.ask(speaker).body == b"ok"


# -- callers who leave -------------------------------------------------------------------------------


def a_caller_that_leaves_is_gone_for_the_service_too(world: World, speaker: Speaker) -> None:
    world.orders.let.clear()
    speaker.begin("GET", b"/orders/7", world.credential())
    assert world.orders.asked.acquire(timeout=15)
    speaker.leave()
    assert world.orders.given_up.acquire(timeout=15)
    world.orders.let.set()
    assert world.leaf_of_the_unanswered("client-gone")["http.response.status_code"] == 499
    assert world.ask(speaker).status == 200


def a_caller_that_leaves_in_its_body_completes_nothing(world: World, speaker: Speaker) -> None:
    speaker.begin("POST", b"/orders/x", world.credential(), has_body=True)
    speaker.send(b"hello")
    world.orders.wait_for(b"hello")
    speaker.leave()
    leaf = world.leaf_of_the_unanswered("client-gone")
    assert (leaf["http.response.status_code"], leaf["http.request.body.bytes"]) == (499, 5)
    assert not world.orders.asked.acquire(blocking=False)  # the service never had a whole request


def a_caller_that_leaves_a_download_stops_it(world: World, speaker: Speaker) -> None:
    world.orders.go_on.clear()
    world.orders.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfirstWAITlast"]
    speaker.begin("GET", b"/orders/7", world.credential())
    speaker.wait_for(b"first")
    speaker.leave()
    assert world.orders.given_up.acquire(timeout=15)
    world.orders.go_on.set()
    assert world.leaf_of_the_unanswered("client-gone")["http.response.body.bytes"] == 5


CASES: dict[str, Case] = {
    "good-token": a_good_token_passes_and_the_service_sees_who_it_is,
    **{f"refused-{name}": partial(refused, name) for name in REFUSALS},
    "limit": a_limit_holds_over_connections_and_workers,
    "upload": an_upload_streams,
    "download": a_download_streams,
    "large-bodies": large_bodies_arrive_whole,
    "unknown-length": an_answer_of_unknown_length_arrives_whole,
    "trailers": trailers_of_a_request_change_nothing,
    "no-body": answers_without_a_body,
    "leaves": a_caller_that_leaves_is_gone_for_the_service_too,
    "leaves-upload": a_caller_that_leaves_in_its_body_completes_nothing,
    "leaves-download": a_caller_that_leaves_a_download_stops_it,
}
