from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.errors import SpiffeIdError
from pki.spiffe import ROLES, SpiffeId, check_trust_domain, is_name


@pytest.mark.parametrize(
    ("text", "role", "name"),
    [
        ("spiffe://mesh.internal/svc/orders", "svc", "orders"),
        ("spiffe://mesh.internal/gw/edge", "gw", "edge"),
        ("spiffe://mesh.internal/op/bob", "op", "bob"),
        ("spiffe://mesh.internal/svc/a/b", None, "b"),
        ("spiffe://mesh.internal/SVC/orders", None, "orders"),
        ("spiffe://mesh.internal/orders", None, "orders"),
        ("spiffe://mesh.internal", None, ""),
    ],
)
def test_role_is_read_only_from_the_exact_shape(text: str, role: str | None, name: str) -> None:
    parsed = SpiffeId.parse(text)
    assert (parsed.role, parsed.name, str(parsed)) == (role, name, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///svc/orders",
        "SPIFFE://mesh.internal/svc/orders",
        "https://mesh.internal/svc/orders",
        "spiffe:/mesh.internal/svc/orders",
        " spiffe://mesh.internal/svc/orders",
        "spiffe://mesh.internal/svc/orders ",
        "spiffe://mesh.internal/svc/orders\n",
        "spiffe://mesh.internal/svc/orders\0",
        "spiffe://mesh.internal/svc/orders/",
        "spiffe://mesh.internal//orders",
        "spiffe://mesh.internal/",
        "spiffe://mesh.internal/svc/../gw/edge",
        "spiffe://mesh.internal/svc/./orders",
        "spiffe://mesh.internal/svc/%6frders",
        "spiffe://Mesh.internal/svc/orders",
        "spiffe://mesh.internal:443/svc/orders",
        "spiffe://user@mesh.internal/svc/orders",
        "spiffe://mesh.internal/svc/orders?x",
        "spiffe://mesh.internal/svc/orders#x",
        "spiffe://mesh.internal/svc/örders",
        "spiffe://mesh.internal/svc/оrders",  # Cyrillic о
        "spiffe://xn--mésh/svc/orders",
        "spiffe://" + "a" * 256 + "/svc/orders",
        "spiffe://mesh.internal/" + "a" * 2048,
    ],
)
def test_P15_look_alikes_are_refused(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"spiffe://[a-z0-9._-]{1,9}(/[A-Za-z0-9._%-]{0,5}){0,3}", fullmatch=True))
def test_any_text_is_an_id_in_one_spelling_or_refused(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except SpiffeIdError:
        return
    assert str(parsed) == text
    assert SpiffeId.parse(str(parsed)) == parsed


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "a_b", "a" * 64, "a\n", ".."])
def test_names_that_are_no_labels_are_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(SpiffeIdError):
        SpiffeId.of("mesh.internal", "svc", name)


@pytest.mark.parametrize("role", ROLES)
def test_of_and_parse_agree(role: str) -> None:
    made = SpiffeId.of("mesh.internal", role, "a-1")  # type: ignore[arg-type]
    assert SpiffeId.parse(str(made)) == made
    assert made.role == role


@pytest.mark.parametrize("text", ["", "Mesh", "a b", "a:1", "a/b", "a\n", "é", "a" * 256])
def test_bad_trust_domains_are_refused(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        check_trust_domain(text)
    with pytest.raises(SpiffeIdError):
        SpiffeId.of(text, "svc", "orders")
