"""Attacks A1–A13, E5: policy, backend or browser would see another request. On a real socket, over both protocols.

Each is held to three things: what the client got, that the upstream saw nothing it should not, and the reason in the log.
"""

from __future__ import annotations

import pytest

from edge.parse.fields import SINGLE
from tests.wire.h2_client import Fields
from tests.wire.hello import Hello
from tests.wire.judge import MALFORMED, each_path, judged, passed, seen_fields
from tests.wire.rig import OK, Rig
from tests.wire.speaker import Http2Speaker, Speaker


def test_A1_dot_segments_and_empty_ones_are_refused_in_every_encoding(rig: Rig, speaker: Speaker) -> None:
    dots = (b"/orders/../admin", b"/orders/./7", b"/orders/..", b"/orders/7/%2e%2e/8", b"/orders/.%2E/8", b"/orders/%2e",
            b"/nowhere/../orders/7")  # fmt: skip
    each_path(rig, speaker, dots, *MALFORMED, "path-dot-segment")
    twice = (b"/orders/%252e%252e/8", b"/orders/%25252e%25252e%25252fadmin", b"/orders/..%252f8")
    each_path(rig, speaker, twice, *MALFORMED, None)
    each_path(rig, speaker, (b"//orders/7", b"/orders//7", b"/orders/7//", b"//"), *MALFORMED, "path-empty-segment")


def test_A2_case_of_escapes_paths_and_hosts_has_one_meaning(rig: Rig, speaker: Speaker) -> None:
    each_path(rig, speaker, (b"/orders/a%2fb", b"/orders/a%2Fb"), *MALFORMED, "path-encoded-slash")
    each_path(rig, speaker, (b"/Orders/7", b"/ORDERS/7"), 404, "no-route", "no-route")
    each_path(rig, speaker, (b"/orders%2f7", b"/%6frders%2F7"), 404, "no-route", "no-route")
    passed(rig, speaker, b"/slashes/a%2fb", b"GET /slashes/a%2Fb")
    passed(rig, speaker, b"/%6frders/%37", b"GET /orders/7")
    rig.upstream.clear()
    assert speaker.ask(authority=b"LOCALHOST").status == 200
    assert seen_fields(rig)[b"host"] == b"localhost"


def test_A3_path_parameters_hide_no_dot_segment(rig: Rig, speaker: Speaker) -> None:
    paths = (b"/orders/..;/admin", b"/orders/..;a=b/8", b"/orders/.;x/7", b"/orders/%2e%2e;/8", b"/orders/..%3b/8")
    each_path(rig, speaker, paths, *MALFORMED, "path-dot-segment")
    each_path(rig, speaker, (b"/orders/;/8", b"/;x/orders/7"), *MALFORMED, "path-empty-segment")
    passed(rig, speaker, b"/orders/7;v=1", b"GET /orders/7;v=1")  # a parameter is a part of its segment


def test_A4_a_fragment_is_refused(rig: Rig, speaker: Speaker) -> None:
    paths = (b"/orders/7#/../admin", b"/nowhere#/orders/7", b"/orders/7?a#b", b"/orders/7#")
    each_path(rig, speaker, paths, *MALFORMED, "target-fragment")
    passed(rig, speaker, b"/orders/%23", b"GET /orders/%23")


def test_A5_the_query_is_no_part_of_the_path(rig: Rig, speaker: Speaker) -> None:
    paths = (b"/nowhere?/orders/7", b"/nowhere?/../orders/7", b"/?path=/orders/7", b"/nowhere%3f/orders/7")
    each_path(rig, speaker, paths, 404, "no-route", "no-route")
    passed(rig, speaker, b"/orders/7?/../../admin//x", b"GET /orders/7?/../../admin//x")
    passed(rig, speaker, b"/orders/7?", b"GET /orders/7?")


def test_A6_a_path_is_what_it_was_after_its_prefix_is_gone(rig: Rig, speaker: Speaker) -> None:
    passed(rig, speaker, b"/api/orders/7", b"GET /orders/7")
    passed(rig, speaker, b"/%61pi/orders/7", b"GET /orders/7")
    rig.upstream.clear()
    each_path(rig, speaker, (b"/api//orders/7", b"/api/%2e%2e/orders", b"/api/..%2forders"), *MALFORMED, None)
    each_path(rig, speaker, (b"/apiorders/7", b"/api/api/orders/7", b"/API/orders/7"), 404, "no-route", "no-route")


def test_A7_backslashes_controls_and_what_is_not_utf8_are_refused(rig: Rig, speaker: Speaker) -> None:
    each_path(rig, speaker, (b"/orders/a%5cb", b"/orders/..%5C8", b"/orders\\7"), *MALFORMED, "path-backslash")
    each_path(rig, speaker, (b"/orders/%00", b"/orders/7%0d%0aX:y", b"/orders/%7f"), *MALFORMED, "path-control-byte")
    overlong = (
        b"/orders/%c0%af",
        b"/orders/%c0%ae%c0%ae",
        b"/orders/%e9",
        b"/orders/%ed%a0%80",
        b"/orders/%f8%88%80%80",
    )
    each_path(rig, speaker, overlong, *MALFORMED, "path-not-utf8")
    each_path(rig, speaker, (b"/orders/%2500", b"/orders/%255c"), *MALFORMED, "path-nested-escape")
    each_path(rig, speaker, (b"/orders/%", b"/orders/%4", b"/orders/%zz"), *MALFORMED, "path-broken-escape")
    each_path(rig, speaker, (b"/orders/\xe9", b"/orders/\xc0\xaf"), *MALFORMED, None)


def test_A8_what_has_one_value_stands_once(rig: Rig, speaker: Speaker) -> None:
    framing = {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"expect",
    }  # by rules of their own, below and elsewhere
    joined = {b"cookie"} if isinstance(speaker, Http2Speaker) else set()  # RFC 9113 §8.2.3
    for name in sorted(SINGLE - framing - joined):
        judged(rig, speaker.ask(fields=[(name, b"a"), (name, b"a")]), *MALFORMED, "field-repeated")
    assert speaker.ask(fields=[(b"accept", b"a"), (b"x-b", b"b"), (b"accept", b"c")]).status == 200
    assert b"\r\naccept: a\r\nx-b: b\r\naccept: c\r\n" in rig.upstream.seen


def test_A9_a_caller_s_name_is_not_folded_and_caches_are_keyed_by_all_of_it(rig: Rig, speaker: Speaker) -> None:
    """What differs in one byte is another request: neither heads seen before nor answers stand in for each other."""
    rig.upstream.answers = [OK.replace(b"ok", b"%02d" % number) for number in range(6)]
    fields: list[Fields] = [
        [(b"x-user", name)] for name in (b"alice", b"Alice", b"alice\xc2\xa0", b"alice", b"ALICE", b"alicf")
    ]
    assert [speaker.ask(fields=each).body for each in fields] == [b"%02d" % number for number in range(6)]
    assert [rig.upstream.seen.count(b"x-user: %b\r\n" % each[0][1]) for each in fields] == [2, 1, 1, 2, 1, 1]


def test_A10_a_target_starts_with_a_slash(rig: Rig, speaker: Speaker) -> None:
    paths = (b"orders/7", b"@evil/orders/7", b"?x", b"*", b"localhost:443", b"%2forders/7", b"\\orders\\7", b".")
    each_path(rig, speaker, paths, *MALFORMED, None)  # llhttp stands before our own rule, and knows some of them


@pytest.mark.parametrize(
    ("authority", "rule"),
    [
        (b"localhost/orders", "host-syntax"),
        (b"localhost?x", "host-syntax"),
        (b"localhost#x", "host-syntax"),
        (b"user@localhost", "host-syntax"),
        (b"localhost.", "host-syntax"),
        (b"localhost:0443", "host-syntax"),
        (b"localhost:99999", "host-syntax"),
        (b"local%68ost", "host-syntax"),
        (b"localhost, elsewhere", "host-syntax"),
        (b"127.1", "host-syntax"),
        (b"0x7f.0.0.1", "host-syntax"),
        (b"2130706433", "host-syntax"),
        (b"[::1", "host-syntax"),
        (b"*", "host-syntax"),
    ],
)
def test_A11_a_host_has_one_spelling(rig: Rig, speaker: Speaker, authority: bytes, rule: str) -> None:
    judged(rig, speaker.ask(authority=authority), *MALFORMED, rule)


def test_A11_absolute_targets_and_second_hosts_are_refused(rig: Rig, speaker: Speaker) -> None:
    each_path(rig, speaker, (b"https://localhost/orders/7", b"http://evil/orders/7"), *MALFORMED, "target-form")
    judged(rig, speaker.ask(fields=[(b"host", b"elsewhere")]), *MALFORMED, None)
    assert speaker.ask(fields=[(b"x-forwarded-host", b"evil"), (b"x-host", b"evil")]).status == 200
    assert seen_fields(rig)[b"x-forwarded-host"] == b"localhost"


def test_A12_one_connection_serves_the_name_it_was_made_for(rig: Rig, speaker: Speaker) -> None:
    judged(rig, speaker.ask(authority=b"127.0.0.1"), 421, "misdirected", "host-differs-from-server-name")
    judged(rig, speaker.ask(authority=b"elsewhere"), 421, "misdirected", "host-not-served")
    judged(rig, speaker.ask(authority=b"localhost.evil.example"), 421, "misdirected", "host-not-served")


@pytest.mark.parametrize("name", ["evil.example", "localhost.", "localhos", "localhost\x00.evil", "*.localhost"])
@pytest.mark.parametrize(("record", "segment"), [(16_384, 16_384), (40, 16_384), (16_384, 7), (9, 5)])
def test_A12_a_server_name_in_pieces_is_the_same_name(rig: Rig, name: str, record: int, segment: int) -> None:
    """As TLS records, as TCP segments, or both: what a look at the first packet would have missed."""
    assert Hello(rig.gateway, name).sent(record, segment) == "unrecognized_name"
    assert Hello(rig.gateway, "LocalHost").sent(record, segment) == "server hello"
    assert rig.upstream.seen == b""


def test_A13_no_method_or_agent_is_let_past(rig: Rig, speaker: Speaker) -> None:
    agents = (b"GoogleHC/1.0", b"kube-probe/1.29", b"ELB-HealthChecker/2.0")
    for agent in agents:
        judged(rig, speaker.ask("PATCH", b"/slashes/7", [(b"user-agent", agent)]), 405, "method-not-allowed")
        judged(rig, speaker.ask("GET", b"/healthz", [(b"user-agent", agent)]), 404, "no-route")
    for method in ("TRACE", "CONNECTED", "PROPFIND", "PURGE", "get", "Get", "GETT", "G", "HEAD2"):
        judged(rig, speaker.ask(method), *MALFORMED)
    for name in (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-method"):
        rig.upstream.clear()
        assert speaker.ask(fields=[(name, b"DELETE")]).status == 200
        assert b"DELETE" not in rig.upstream.seen


@pytest.mark.parametrize("path", [b"//evil.example", b"/%2f%2fevil.example/..", b"/\\evil.example", b"/%5cevil.example",
                                  b"/nowhere/", b"/orders/..//evil.example", b"/?to=https://evil.example"])  # fmt: skip
def test_E5_the_gateway_points_nowhere(rig: Rig, speaker: Speaker, path: bytes) -> None:
    """No answer of its own is a redirect, whatever a client says of the way it came."""
    said: Fields = [
        (name, b"//evil.example") for name in (b"x-forwarded-host", b"x-forwarded-prefix", b"x-original-url")
    ]
    answer = speaker.ask("GET", path, fields=said)
    assert answer.status in (400, 404)
    judged(rig, answer, answer.status, {400: "malformed-request", 404: "no-route"}[answer.status])
    assert not {"location", "refresh", "content-location"} & set(answer.fields)
    assert b"evil" not in answer.body
