"""What the supervisor knows of a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge.audit.record import AuditSettings
from edge.config.secret import Secret
from edge.config.sources import RawFile, Sources
from edge.errors import Fault
from edge.serve.errand import Failure
from edge.serve.outline import Outline, Verdict, digest, fixed_differences, read_verdict, watched_files

OUTLINE = Outline(
    bundle_hash="h",
    trust_domain="mesh.internal",
    state="/e/state",
    listeners=(("public", "127.0.0.1", 8443),),
    workers=1,
    store="embedded",
    audit=AuditSettings("mesh.internal/log"),
    hosts=("localhost",),
    issues_gateway=True,
    issues_public=True,
)
SOURCES = Sources(
    Path("/e/edge.yaml"),
    RawFile("edge.yaml", b"a"),
    "policies",
    (RawFile("policies/routes.yaml", b"b"),),
    (),
    {"/e/state/key.pem": Secret(b"k")},
    {"/e/jwks.json": "no such file"},
    {"STORE": Secret(b"s")},
)


def test_verdict_round_trips() -> None:
    for verdict in (Verdict(OUTLINE), Verdict(faults=(Fault("f", 1, 2, "r", "m", "n"),))):
        assert read_verdict(msgspec.json.encode(verdict), "edge.yaml") == verdict


@pytest.mark.parametrize("result", [Failure("SIGSEGV"), b"", b"{", b'{"outline":1}', b"[]"])
def test_child_without_a_readable_result_is_one_fault(result: bytes | Failure) -> None:
    verdict = read_verdict(result, "edge.yaml")
    assert verdict.outline is None
    assert [(fault.file, fault.rule) for fault in verdict.faults] == [("edge.yaml", "parser-died")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trust_domain", "other"),
        ("state", "/x"),
        ("listeners", ()),
        ("workers", 2),
        ("store", "f"),
        ("audit", AuditSettings("o")),
    ],
)
def test_what_is_made_once_is_a_fault_when_it_changes(name: str, value: object) -> None:
    wanted = msgspec.structs.replace(OUTLINE, **{name: value})
    (fault,) = fixed_differences(OUTLINE, wanted, "edge.yaml")
    assert (fault.rule, fault.message.partition(":")[0]) == ("needs-restart", name)


def test_hosts_and_policies_may_change() -> None:
    wanted = msgspec.structs.replace(OUTLINE, hosts=("a",), bundle_hash="i", warnings=("w",))
    assert fixed_differences(OUTLINE, wanted, "edge.yaml") == ()


@pytest.mark.parametrize(
    "changed",
    [
        replace(SOURCES, edge=RawFile("edge.yaml", b"c")),
        replace(SOURCES, policies=()),
        replace(SOURCES, unknown=("policies/route.yaml",)),
        replace(SOURCES, files={"/e/state/key.pem": Secret(b"K")}),
        replace(SOURCES, files={}),
        replace(SOURCES, unreadable={}),
        replace(SOURCES, variables={"STORE": Secret(b"S")}),
    ],
    ids=["edge.yaml", "policy", "unknown file", "key", "no key", "unreadable", "variable"],
)
def test_any_difference_between_two_readings_shows(changed: Sources) -> None:
    assert digest(changed) != digest(SOURCES)


def test_same_bytes_are_the_same_reading() -> None:
    assert digest(replace(SOURCES, files={"/e/state/key.pem": Secret(b"k")})) == digest(SOURCES)


def test_everything_named_is_watched_also_what_is_missing() -> None:
    watched = watched_files(SOURCES)
    for path in ("/e/edge.yaml", "/e/policies/routes.yaml", "/e/state/key.pem", "/e/jwks.json"):
        assert Path(path) in watched
