"""`edge attach` understands what it is told, or says what it should have been told, before it opens anything."""

from __future__ import annotations

import pytest

from edge.cli import run

GOOD = {"--to": "http://127.0.0.1:8001", "--listen": "127.0.0.1:0"}


@pytest.mark.parametrize(
    ("service", "changed"),
    [
        ("orders", {"--to": "http://10.0.0.1:80"}),
        ("orders", {"--to": "https://127.0.0.1:80"}),
        ("orders", {"--listen": "9101"}),
        ("orders", {"--gateway": "http://edge:9443"}),
        ("orders", {"--gateway": "https://edge"}),
        ("orders", {"--enrol": "https://edge:99999"}),
        ("orders", {"--fingerprint": "sha256:abc"}),
        ("orders", {"--assertion": "always"}),
        ("orders", {"--accept": "/gw/edge"}),
        ("orders", {"--instance": "Not A Name"}),
        ("orders", {"--weight": "0"}),
        ("Orders!", {}),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    service: str, changed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for option in (GOOD | changed).items() for word in option]
    assert run(["attach", service, *options]) == 2
    assert "Invalid value" in capsys.readouterr().err
