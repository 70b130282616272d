"""What every refusal is held to: what the client got, that the upstream saw nothing of it, and the reason in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.wire.h2_client import Goaway, Reset
from tests.wire.rig import Answer, Rig
from tests.wire.speaker import Speaker

PROTOCOL_ERROR = 1

MALFORMED = (400, "malformed-request")


def judged(rig: Rig, answer: Answer, status: int, reason: str, rule: str | None = None) -> None:
    """A refusal: told to the client, kept from the upstream, and in the log under its reason."""
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.fields["content-type"] == "application/problem+json"
    assert rig.upstream.seen == b""
    leaf = rig.record(answer.fields["x-request-id"])
    assert (leaf["event.outcome"], leaf["event.reason"]) == ("failure", reason)
    assert rule is None or leaf["rule.id"] == rule


def each_path(rig: Rig, speaker: Speaker, paths: Iterable[bytes], status: int, reason: str, rule: str | None) -> None:
    for path in paths:
        judged(rig, speaker.ask("GET", path), status, reason, rule)


def passed(rig: Rig, speaker: Speaker, path: bytes, line: bytes) -> None:
    """Served, and the upstream read exactly this request line."""
    rig.upstream.clear()
    assert speaker.ask("GET", path).status == 200
    assert rig.upstream.seen.partition(b"\r\n")[0] == line + b" HTTP/1.1"


def seen_fields(rig: Rig) -> dict[bytes, bytes]:
    """Of the one request that the upstream got; a field that stood there twice is an error."""
    lines = rig.upstream.seen.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = dict(line.split(b": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


def refused_by_http2(rig: Rig, ask: Callable[[], Answer]) -> None:
    """As a request that is malformed, or as a stream that never became one."""
    code = None
    try:
        judged(rig, ask(), *MALFORMED)
    except (Reset, Goaway) as told:
        code = told.code
    assert code in (None, PROTOCOL_ERROR)
    assert rig.upstream.seen == b""
