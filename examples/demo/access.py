"""Promise 1: who may call, what of it, and how often."""

from __future__ import annotations

from examples.demo.caller import Answer
from examples.demo.mesh import Mesh
from examples.demo.promise import Promises, expect, require

QUOTA = 100
"""The limit that `edge init` writes: requests a minute and subject on the service orders."""


def show(promises: Promises, mesh: Mesh) -> None:
    """Good, missing, bad and insufficient tokens, and one too many requests."""
    promises.chapter("A request passes with a valid token, the right scope, and within its limit")
    _good_token(promises, mesh)
    _no_token(promises, mesh)
    _bad_tokens(promises, mesh)
    _missing_scope(promises, mesh)
    _above_the_limit(promises, mesh)
    _nothing_else_arrived(promises, mesh)


def _good_token(promises: Promises, mesh: Mesh) -> None:
    with promises.promise("good token → 200; the service saw the verified subject, not the token"):
        token = mesh.token("alice")
        # A client that names itself somebody else is not believed.
        answer = mesh.caller.ask("GET", "/orders/7?page=2", token, X_Auth_Subject="root")
        expect("status", answer.status, 200)
        headers = answer.seen["headers"]
        expect("path at the service", answer.seen["path"], "/orders/7?page=2")
        expect("x-auth-subject", headers.get("x-auth-subject"), "alice")
        expect("x-auth-issuer", headers.get("x-auth-issuer"), mesh.issuer_url)
        expect("x-auth-scopes", set(headers.get("x-auth-scopes", "").split()), {"orders:read", "orders:write"})
        expect("x-request-id", headers.get("x-request-id"), answer.decision_id)
        require("no Authorization header at the service", "authorization" not in headers)
        require(
            "no part of the token at the service", not any(part in answer.body.decode() for part in token.split("."))
        )


def _no_token(promises: Promises, mesh: Mesh) -> None:
    with promises.promise("no token → 401 credential-missing, with a challenge"):
        answer = mesh.caller.ask("GET", "/orders/7")
        _refused(answer, 401, "credential-missing")
        require("the challenge asks for a bearer token", answer.fields["www-authenticate"].startswith("Bearer"))


def _bad_tokens(promises: Promises, mesh: Mesh) -> None:
    with promises.promise("token for another audience, expired, forged → 401 credential-rejected") as facts:
        minter, scopes = mesh.minter(), ("orders:read",)
        tokens = {
            "audience": minter.for_another_audience("alice", scopes),
            "expired": minter.expired("alice", scopes),
            "signature": minter.forged("alice", scopes),
        }
        answers = [mesh.caller.ask("GET", "/orders/7", token) for token in tokens.values()]
        for answer in answers:
            _refused(answer, 401, "credential-rejected")
            require("the challenge says invalid_token", 'error="invalid_token"' in answer.fields["www-authenticate"])
        # With nothing wrong the same key is good: each was refused for its one flaw.
        expect("status without a flaw", mesh.caller.ask("GET", "/orders/7", minter.good("alice", scopes)).status, 200)
        rules = [leaf["rule.id"] for leaf in mesh.leaves_of(answers)]
        expect("rules in the log", rules, list(tokens))
        facts.append(f"in the log: {', '.join(rules)}")


def _missing_scope(promises: Promises, mesh: Mesh) -> None:
    with promises.promise("good token without orders:write, POST → 403 forbidden, insufficient_scope"):
        answer = mesh.caller.ask("POST", "/orders", mesh.token("bob"), body=b'{"article": 7}')
        _refused(answer, 403, "forbidden")
        challenge = answer.fields["www-authenticate"]
        require("the challenge says insufficient_scope", 'error="insufficient_scope"' in challenge)
        require("the challenge names the scope", 'scope="orders:write"' in challenge)


def _above_the_limit(promises: Promises, mesh: Mesh) -> None:
    with promises.promise(f"request {QUOTA + 1} of {QUOTA} a minute → 429 quota-exceeded with Retry-After") as facts:
        token = mesh.token("carol")
        with mesh.caller.connect() as connection:
            statuses = [connection.ask("GET", "/orders/7", token).status for _ in range(QUOTA)]
            answer = connection.ask("GET", "/orders/7", token)
        expect("statuses within the limit", set(statuses), {200})
        _refused(answer, 429, "quota-exceeded")
        require("0 < Retry-After ≤ 60", 0 < int(answer.fields["retry-after"]) <= 60)
        expect("status of another subject", mesh.caller.ask("GET", "/orders/7", mesh.token("alice")).status, 200)
        facts.append(f"retry after {answer.fields['retry-after']} s; others go on")


def _nothing_else_arrived(promises: Promises, mesh: Mesh) -> None:
    with promises.promise("of all these, the service got the allowed ones and no other") as facts:
        answer = mesh.caller.ask("GET", "/orders/7", mesh.token("alice"))
        allowed = sum(status == 200 for status in mesh.journal.answers.values())
        expect("requests served by orders", answer.seen["served"], allowed)
        facts.append(f"{allowed} of {len(mesh.journal.answers)}")


def _refused(answer: Answer, status: int, reason: str) -> None:
    expect("status", answer.status, status)
    expect("reason", answer.reason, reason)
    expect("Cache-Control", answer.fields.get("cache-control"), "no-store")
