"""Processes that share the suite collect the same tests in the same order."""

from __future__ import annotations

import pytest

from tests.architecture.order import uncertain
from tests.architecture.source import ROOT

IN_ORDER_ALL_THE_SAME = {
    "tests/edge/control/test_app.py": {"ROWS", "ROUTES['services']"},  # a mapping of tuples
    "tests/vectors/test_jws.py": {"_cases()"},  # published files are read in their order
    "tests/vectors/test_merkle.py": {"_cases('merkle-inclusion.json')", "_cases('merkle-consistency.json')"},
    "tests/vectors/test_signed_note.py": {
        "_cases('open')",
        *(f"SUITE.get('{part}', [])" for part in ("bad_verifier_keys", "good_verifier_keys", "sign")),
    },
    "tests/vectors/test_tlog_proof.py": {f"SUITE.get('{part}', [])" for part in ("must_reject", "syntax_ok")},
}
"""What the rule cannot know, looked at by a person."""


def test_no_order_of_tests_depends_on_a_hash_seed() -> None:
    files = (ROOT / "tests").rglob("*.py")
    found = {str(file.relative_to(ROOT)): set(places) for file in files if (places := uncertain(file.read_text()))}
    assert found == IN_ORDER_ALL_THE_SAME


SETS = """
import pytest
from edge.forward.fields import MANAGED
from edge.forward import fields
A, B = {"a"}, {"b"}
C = {"a", "b"}
D = [each for each in C]
E = {**{each: 1 for each in C}}
"""


@pytest.mark.parametrize(
    "values",
    ["{'a', 'b'}", "set('ab')", "frozenset(['a'])", "C", "D", "E", "list(C)", "[*C]", "[*'ab', *C]", "D + [1]", "C - {'a'}",
     "C | {'c'}", "MANAGED", "fields.MANAGED", "[1 for each in MANAGED]", "list(enumerate(C))", "unknown", "made()"],
)  # fmt: skip
def test_the_rule_notices(values: str) -> None:
    tests = f"{SETS}\n@pytest.mark.parametrize('case', {values})\ndef test_it(case): ...\n"
    fixtures = f"{SETS}\n@pytest.fixture(params={values})\ndef it(request): ...\n"
    assert uncertain(tests) == uncertain(fixtures) != []


@pytest.mark.parametrize(
    "values",
    ["sorted(C)", "['a', {1, 2}]", "sorted({*C, 1})", "dict(a=1)", "{'a': 1} | {'b': 2}", "list({'a': C}.items())"],
)
def test_the_rule_lets_pass_what_is_in_order(values: str) -> None:
    assert uncertain(f"{SETS}\n@pytest.mark.parametrize('case', {values})\ndef test_it(case): ...\n") == []


def test_imported_names_are_looked_up() -> None:
    imported = "from tests.wire.speaker import SPEAKERS"
    assert uncertain(f"{imported}\n@pytest.mark.parametrize('speaker', SPEAKERS)\ndef test_it(speaker): ...") == []
