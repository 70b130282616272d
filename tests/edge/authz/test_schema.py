from __future__ import annotations

from pathlib import Path

import pytest

from edge.authz import schema
from edge.authz.scan import PolicySource

SHIPPED = Path(__file__).parents[3] / "policies" / "edge.cedarschema"


def faults(text: str) -> list[tuple[int, str]]:
    return [(fault.line, fault.rule) for fault in schema.check(PolicySource("edge.cedarschema", text.encode()))]


def test_the_shipped_file_is_the_schema_letter_by_letter() -> None:
    assert SHIPPED.read_text() == schema.TEXT


def test_cedar_takes_the_schema() -> None:
    assert 'action "GET" in [Action::"read"]' in str(schema.handle())


def test_comments_and_white_space_are_free() -> None:
    assert faults("// mine\n" + schema.TEXT.replace("  ", "\t").replace("\n", "\r\n")) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("tenant?: String", "tenant: String", 5),
        ("token?: {", "token: {", 22),
        ('in ["read"]', 'in ["write"]', 31),
        ("namespace Edge", "namespace Egde", 3),
        ("now: datetime,", "now: datetime, extra: String,", 27),
    ],
)
def test_a_schema_that_says_something_else_is_refused_at_the_place(old: str, new: str, line: int) -> None:
    assert faults(schema.TEXT.replace(old, new)) == [(line, "schema-differs")]


def test_an_empty_schema_is_refused() -> None:
    assert faults("") == [(1, "schema-differs")]


def test_a_truncated_schema_is_refused() -> None:
    assert [rule for _, rule in faults(schema.TEXT.rstrip().removesuffix("}"))] == ["schema-differs"]


def test_a_schema_with_more_behind_it_is_refused() -> None:
    assert [rule for _, rule in faults(schema.TEXT + "entity Rogue;")] == ["schema-differs"]


def test_a_schema_nested_a_thousand_deep_is_never_parsed() -> None:
    assert faults("type A = " + "{a:" * 1000 + "}" * 1000) == [(1, "schema-differs")]


def test_hidden_characters_in_the_schema_are_refused() -> None:
    assert faults(schema.TEXT.replace("  // A verified", "  // \u202e A verified")) == [(4, "hidden-character")]


@pytest.mark.parametrize("method", schema.GROUP_OF)
def test_every_method_we_know_is_an_action(method: str) -> None:
    assert f'action "{method}"' in str(schema.handle())
