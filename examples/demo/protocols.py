"""Promise 4: over HTTP/2 everything is as it is over HTTP/1.1."""

from __future__ import annotations

from examples.demo.access import QUOTA
from examples.demo.caller import Answer
from examples.demo.http2 import Http2Connection
from examples.demo.mesh import Mesh
from examples.demo.promise import Promises, expect


def show(promises: Promises, mesh: Mesh) -> None:
    """The same token, the same policy, the same limit."""
    promises.chapter("HTTP/2 is the same line: the same token, the same policy, the same limit")
    with Http2Connection(mesh.caller.port, mesh.anchors, mesh.journal) as two:
        _same_token(promises, mesh, two)
        _same_refusals(promises, mesh, two)
        _same_limit(promises, mesh, two)


def _same_token(promises: Promises, mesh: Mesh, two: Http2Connection) -> None:
    with promises.promise("one token over both → 200; the service saw the same") as facts:
        token = mesh.token("alice")
        answers = [mesh.caller.ask("GET", "/orders/7", token), two.ask("GET", "/orders/7", token)]
        expect("statuses", [answer.status for answer in answers], [200, 200])
        for name in ("x-auth-subject", "x-auth-scopes"):
            first, second = (answer.seen["headers"][name] for answer in answers)
            expect(f"{name} at the service", second, first)
        versions = [leaf["http.version"] for leaf in mesh.leaves_of(answers)]
        expect("http.version in the log", versions, ["1.1", "2"])
        facts.append(f"in the log: {' and '.join(versions)}")


def _same_refusals(promises: Promises, mesh: Mesh, two: Http2Connection) -> None:
    with promises.promise("no token → 401, without orders:write → 403, no route → 404; word for word alike"):
        reader = mesh.token("bob")
        requests = (("GET", "/orders/7", None), ("POST", "/orders", reader), ("GET", "/nowhere", reader))
        for (method, path, token), status in zip(requests, (401, 403, 404), strict=True):
            body = b"{}" if method == "POST" else b""
            first = mesh.caller.ask(method, path, token, body=body)
            second = two.ask(method, path, token, body=body)
            expect("status", second.status, status)
            expect("the answer over HTTP/2", _words(second), _words(first))


def _words(answer: Answer) -> tuple[int, str | None, str | None]:
    return answer.status, answer.reason, answer.fields.get("www-authenticate")


def _same_limit(promises: Promises, mesh: Mesh, two: Http2Connection) -> None:
    half = QUOTA // 2
    with promises.promise(f"{half} requests over each are {QUOTA} → the next is 429 over either"):
        token = mesh.token("frank")
        with mesh.caller.connect() as one:
            statuses = [connection.ask("GET", "/orders/7", token).status for connection in (one, two) * half]
            expect("statuses within the limit", set(statuses), {200})
            answers = [connection.ask("GET", "/orders/7", token) for connection in (one, two)]
        refusals = [(answer.status, answer.reason) for answer in answers]
        expect("the next", refusals, [(429, "quota-exceeded")] * 2)
