"""Assertions, fuzzed at every depth: as a field, as what a gateway would have signed, as the chain that it brings."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from functools import cache

from edge.verify import AssertionRefused, Caller, Verifier
from edge.verify.form import NotOfTheForm, parsed, printed, segment
from tests.edge.verify.mesh import GATEWAY, ORDERS, mesh, presented, signed, spelled

WORDS = (
    b".",
    b'"exp":',
    b'"scopes":[',
    b'"request":{',
    b"null",
    b"1e9",
    b"\\u0000",
    b"eyJ",
    b"ES256",
    b'"x5c":["',
    b"\x30\x82",
)
BOUND = {"jti": "D1", "request": {"method": "GET", "authority": "a", "target": "/orders/7"}}


@cache
def _good() -> tuple[bytes, Verifier]:
    return mesh().assertion(), mesh().verifier()


def seeds() -> list[bytes]:
    return [
        _good()[0],
        spelled(mesh().header()),
        spelled(mesh().claims()),
        spelled(mesh().claims(sub_id=None, scopes=None, **BOUND)),
        mesh().gateway.der,
    ]


def _judge(assertion: bytes, *more: tuple[bytes, bytes]) -> Caller | None:
    with suppress(AssertionRefused):
        return _good()[1].check(presented(assertion, *more), mesh().now_ns, None)
    return None


def run(data: bytes) -> None:
    """What passes as a field is, byte by byte, what the gateway signed. Whatever it signed, nobody else is named by it."""
    if _judge(data) is not None:
        assert data == _good()[0]
    key = mesh().gateway.key
    caller = _judge(signed(spelled(mesh().header()), data, key))
    if caller is not None:
        assert (caller.gateway, caller.subject, caller.scopes) == (GATEWAY, "alice", frozenset(("a", "b")))
        assert parsed(segment(data))["aud"] == ORDERS
    if _judge(signed(data, spelled(mesh().claims()), key)) is not None:
        header = parsed(segment(data))  # certificates behind the leaf change nothing
        assert header | {"x5c": header["x5c"][:1]} == mesh().header()
    header = mesh().header(x5c=[b64encode(data).decode()])
    if _judge(signed(spelled(header), spelled(mesh().claims()), key)) is not None:
        assert data == mesh().gateway.der
    with suppress(NotOfTheForm):
        assert printed(parsed(segment(data))) == segment(data)
    _judge(_good()[0], (data[:40].lower(), b"root"), (b"host", data))
