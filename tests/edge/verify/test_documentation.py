"""docs/verify.md is true: its examples run as they stand there, and its lists are the code's."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge.verify import RULES, AsgiVerifier, WsgiVerifier
from edge.verify.io_guard import Guard, Options
from tests.architecture.source import ROOT
from tests.edge.verify.mesh import ALICE, ORDERS, mesh_of_today

TEXT = (ROOT / "docs" / "verify.md").read_text()
EXAMPLES: dict[str, str] = dict(re.findall(r"^```python (\w+)\n(.*?)^```", TEXT, re.M | re.S))
FIELDS = {name.decode(): value.decode() for name, value in ALICE}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "bundle.pem").write_bytes(mesh_of_today().bundle_pem)
    monkeypatch.chdir(tmp_path)


def run(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": name}
    exec(compile(EXAMPLES[name], f"docs/verify.md ({name})", "exec"), found)
    return found


def fields() -> dict[str, str]:
    return FIELDS | {"edge-assertion": mesh_of_today().assertion().decode()}


def test_the_example_of_quart() -> None:
    async def ask(headers: dict[str, str]) -> tuple[int, Any]:
        answer = await client.get("/orders/7", headers=headers)
        return answer.status_code, await answer.get_json()

    client = run("quart")["app"].test_client()
    assert asyncio.run(ask(fields())) == (200, {"number": "7", "for": "alice"})
    assert asyncio.run(ask(FIELDS))[0] == 401


def test_the_example_of_flask() -> None:
    client = run("flask")["app"].test_client()
    shown = {"SSL_CLIENT_CERT": mesh_of_today().gateway.pem.decode()}
    answer = client.get("/orders/7", headers=fields(), environ_base=shown)
    assert (answer.status_code, answer.get_json()) == (200, {"number": "7", "for": "alice"})
    assert client.get("/orders/7", headers=FIELDS, environ_base=shown).status_code == 401
    assert client.get("/orders/7", headers=fields()).status_code == 403


def test_the_example_of_fastapi() -> None:
    """Where it is installed it is made; where not, at least its settings are ours."""
    if find_spec("fastapi") is not None:
        assert run("fastapi")["app"].user_middleware[0].cls is AsgiVerifier
    (call,) = [
        node
        for node in ast.walk(ast.parse(EXAMPLES["fastapi"]))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_middleware"
    ]
    given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    inspect.signature(Guard).bind(**given)


def test_the_example_of_the_function() -> None:
    judge, gateway = run("function")["judge"], mesh_of_today().gateway.der
    raw = [(name, value.encode()) for name, value in fields().items()]
    encoded = [(name.encode(), value) for name, value in raw]
    assert judge([gateway], "GET", b"/orders/7", b"", encoded) == "200 alice"
    assert judge([gateway], "GET", b"/orders/7", b"", encoded[:-1]) == "401 assertion-missing"
    assert judge([], "GET", b"/orders/7", b"", encoded) == "403 peer-rejected"


def test_every_rule_and_setting_is_listed() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.*) \|$", TEXT, re.M)
    assert {rule: (int(status), meaning) for rule, status, meaning in listed} == RULES
    settings = list(inspect.signature(Guard).parameters)
    assert settings == list(Options.__annotations__)
    assert [f"| `{name}` |" in TEXT for name in settings] == [True] * 5


@pytest.mark.parametrize("kind", [AsgiVerifier, WsgiVerifier])
def test_a_setting_that_does_not_exist_is_not_passed_over(kind: Any) -> None:
    """`gateway=` for `gateways=` would let in every gateway."""
    with pytest.raises(TypeError, match="gateway"):
        kind(lambda *_: None, service=ORDERS, bundle="bundle.pem", gateway=[])
