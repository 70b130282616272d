from __future__ import annotations

from dataclasses import replace

import pytest

from edge.config.document import read
from edge.config.sources import RawFile, is_url, references, variable
from tests.edge.config.house import EDGE, sources


def test_hash_names_every_byte_and_name_of_the_bundle() -> None:
    before = sources()
    moved = replace(before, policies=(RawFile("policies/z.cedar", b"x"), *before.policies))
    renamed = replace(before, policies=(RawFile("policies/y.cedar", b"x"), *before.policies))
    changed = replace(before, edge=RawFile("edge.yaml", EDGE.encode() + b"\n"))
    hashes = {each.bundle_hash for each in (before, moved, renamed, changed)}
    assert len(hashes) == 4
    assert all(len(each) == 64 for each in hashes)


def test_hash_does_not_depend_on_the_order_of_reading_or_on_other_files() -> None:
    before = sources()
    assert replace(before, policies=before.policies[::-1]).bundle_hash == before.bundle_hash
    assert sources(files={"key.pem": b"x"}).bundle_hash == before.bundle_hash


def test_hash_tells_where_one_file_ends_and_the_next_begins() -> None:
    one = replace(sources(), policies=(RawFile("a", b"bc"),))
    other = replace(sources(), policies=(RawFile("ab", b"c"),))
    assert one.bundle_hash != other.bundle_hash


def test_table_may_be_yaml_or_json() -> None:
    found = sources(policies={"routes.yaml": None, "routes.json": "{}"}).policy("routes")
    assert found is not None
    assert found.name == "policies/routes.json"
    assert sources(policies={"routes.yaml": None}).policy("routes") is None


def test_secrets_of_sources_do_not_show() -> None:
    assert "hunter2" not in repr(sources(files={"key.pem": b"hunter2"}, variables={"EDGE_STORE": "hunter2"}))


def test_relative_paths_are_relative_to_edge_yaml() -> None:
    assert sources().path("a/../b.pem") == "/edge/b.pem"
    assert sources().path("/etc/b.pem") == "/etc/b.pem"


def test_references_are_found_before_anything_is_judged() -> None:
    text = """
policies: rules
store: ${EDGE_STORE}
identity: {certificate: a.pem, key: a.key, bundle: ca.pem, extra: [1]}
listeners: {public: {tls: {certificate: b.pem, key: b.key}}}
issuers: [{jwks: keys.json, ca: i.pem}, {jwks: "https://idp/keys"}, 7, {jwks: [a]}]
"""
    found = references(read("edge.yaml", text.encode()))
    assert found.policies == "rules"
    assert found.files == ("a.pem", "a.key", "ca.pem", "b.pem", "b.key", "keys.json", "i.pem")
    assert found.variables == ("EDGE_STORE",)


def test_identities_under_state_are_read_where_none_is_named() -> None:
    found = references(read("edge.yaml", b"state: s\n"))
    assert found.policies == "policies"
    assert found.files == (
        "s/identity/gateway/chain.pem",
        "s/identity/gateway/key.pem",
        "s/identity/gateway/bundle.pem",
        "s/identity/public/chain.pem",
        "s/identity/public/key.pem",
    )


@pytest.mark.parametrize("text", ["[1]", "", "a: [", "issuers: 5", "state: [x]", "listeners: 7", "store: 1"])
def test_references_of_a_broken_file_are_what_can_be_found(text: str) -> None:
    assert len(references(read("edge.yaml", text.encode())).files) == 5


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("${A}", "A"),
        ("${EDGE_STORE_2}", "EDGE_STORE_2"),
        ("$A", None),
        ("x${A}", None),
        ("${}", None),
        ("${A B}", None),
    ],
)
def test_variable_is_a_whole_value(text: str, name: str | None) -> None:
    assert variable(text) == name


def test_url_is_told_from_a_file() -> None:
    assert (is_url("https://x/y"), is_url("keys.json"), is_url("/a/b")) == (True, False, False)
