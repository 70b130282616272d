"""The admin listener on the wire: plain HTTP on loopback, the same line, and health that stands before it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.wire.rig import Answer, Client, Rig


class PlainClient(Client):
    """A client of the admin listener: no TLS."""

    def __init__(self, rig: Rig) -> None:
        self.tls = socket.create_connection(("127.0.0.1", rig.gateway.admin), 15)  # type: ignore[assignment]
        self._buffer = b""


@pytest.fixture
def client(rig: Rig) -> Iterator[PlainClient]:
    client = PlainClient(rig)
    yield client
    client.close()


def get(path: bytes, *fields: bytes, host: bytes = b"localhost") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % path, b"Host: " + host, *fields]) + b"\r\n\r\n"


def refused(rig: Rig, answer: Answer, status: int, reason: str, rule: str) -> None:
    assert (answer.status, answer.reason) == (status, reason)
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.outcome"], leaf["event.reason"], leaf["rule.id"]) == ("failure", reason, rule)
    assert rig.upstream.seen == b""


def test_facts_are_answered_behind_the_line_and_recorded(rig: Rig, client: PlainClient) -> None:
    answer = client.send(get(b"/v1/status")).answer()
    assert answer.status == 200
    assert "strict-transport-security" not in answer.fields  # RFC 6797 §7.2
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["route.name"], leaf["policy.ids"]) == ("edge-status", ["edge-status"])


def test_health_is_not_recorded(rig: Rig, client: PlainClient) -> None:
    answer = client.send(get(b"/healthz", host=b"anything")).answer()
    assert answer.status == 200
    assert "x-request-id" not in answer.fields


@pytest.mark.parametrize(
    ("raw", "status", "reason", "rule"),
    [
        (get(b"/nothing"), 404, "no-route", "no-route"),
        (get(b"/.well-known/est/cacerts"), 404, "no-route", "no-route"),
        (get(b"/v1/status").replace(b"GET", b"POST", 1), 405, "method-not-allowed", "method-not-allowed"),
        (get(b"/v1/status", host=b"evil.example"), 421, "misdirected", "host-not-served"),
        (get(b"/v1/status", b"Origin: https://evil.example"), 403, "forbidden", "foreign-origin"),
        (get(b"/v1/status", b"Origin: null"), 403, "forbidden", "foreign-origin"),
        (get(b"/v1/%2e%2e/status"), 400, "malformed-request", "path-dot-segment"),
        (get(b"/v1/status", b"Content-Length: 65537"), 413, "payload-too-large", "content-length-above-route-limit"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_E6(
    rig: Rig, client: PlainClient, raw: bytes, status: int, reason: str, rule: str
) -> None:
    if b"Content-Length" in raw:
        raw += b"x"
    refused(rig, client.send(raw).answer(), status, reason, rule)


def test_one_s_own_origin_passes(client: PlainClient) -> None:
    assert client.send(get(b"/v1/routes", b"Origin: http://localhost")).answer().status == 200


@pytest.mark.parametrize("host", [b"localhost", b"evil.example"])
def test_nobody_changes_the_protocol_C3(client: PlainClient, host: bytes) -> None:
    """HTTP/2 without TLS would be Hypercorn's own, with none of the budgets that ours has."""
    wish = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    answer = client.send(get(b"/v1/status", *wish, host=host)).answer()
    assert answer.status == (200 if host == b"localhost" else 421)


def test_http_2_that_nobody_agreed_on_is_refused_C3(rig: Rig, client: PlainClient) -> None:
    answer = client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))).answer()
    assert (answer.status, answer.reason) == (400, "malformed-request")


@pytest.mark.parametrize("path", [b"/v1/status", b"/healthz", b"/nothing"])
def test_the_time_is_told_once(client: PlainClient, path: bytes) -> None:
    assert client.send(get(path)).answer().fields["date"].count("GMT") == 1
