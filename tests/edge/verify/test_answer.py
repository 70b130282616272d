"""The answer tells that, and not why."""

from __future__ import annotations

import json

import pytest

from edge.verify.answer import refusal


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_a_short_problem_document(status: int) -> None:
    fields, body = refusal(status)
    assert json.loads(body)["status"] == status
    assert dict(fields)["Content-Length"] == str(len(body))
    assert dict(fields)["Content-Type"] == "application/problem+json"
    assert ("WWW-Authenticate" in dict(fields)) == (status == 401)
