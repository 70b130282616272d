from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from edge.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from edge.forward.retry import IDEMPOTENT, MAX_RETRIES, may_be_sent_again
from edge.model.http import Request
from tests.edge.authn.simulator import request

GONE = UpstreamUnreachable("upstream-closed")
GET = request(None)


@dataclass
class Carried:
    is_reused: bool = True
    answer_started: bool = False


@pytest.mark.parametrize("method", sorted(IDEMPOTENT))
def test_what_waited_and_closed_before_an_answer_is_asked_again_elsewhere(method: str) -> None:
    assert [
        may_be_sent_again(replace(GET, method=method), GONE, Carried(), done) for done in range(MAX_RETRIES + 1)
    ] == [
        *[True] * MAX_RETRIES,
        False,
    ]


@pytest.mark.parametrize(
    ("asked", "error", "connection"),
    [
        (replace(GET, method="POST"), GONE, Carried()),
        (replace(GET, method="PATCH"), GONE, Carried()),
        (replace(GET, method="get"), GONE, Carried()),
        (replace(GET, content_length=1), GONE, Carried()),
        (replace(GET, chunked=True), GONE, Carried()),
        (GET, UpstreamTimeout("answer-timeout"), Carried()),
        (GET, UpstreamProtocolError("upstream-syntax"), Carried()),
        (GET, GONE, Carried(is_reused=False)),
        (GET, GONE, Carried(answer_started=True)),
    ],
)
def test_whatever_somebody_may_have_acted_on_is_not(asked: Request, error: UpstreamError, connection: Carried) -> None:
    assert not may_be_sent_again(asked, error, connection, 0)
