"""Lines on stderr."""

from __future__ import annotations

import ast
import json
import logging
import re
from pathlib import Path

import pytest

from edge.config.secret import Secret
from edge.errors import Fault
from edge.serve.report import FACTS, LogFormat, Report

FAULT = Fault("routes.yaml", 14, 17, "wrong-value", "expected a number", "write 5.0")


def test_ready_line_is_word_by_word(capsys: pytest.CaptureFixture[str]) -> None:
    Report("supervisor").ready({"public": "127.0.0.1:8443", "admin": "[::1]:9901"})
    assert capsys.readouterr().err == "ready public=127.0.0.1:8443 admin=[::1]:9901\n"


def test_fault_is_one_line_in_the_form_of_all_diagnostics(capsys: pytest.CaptureFixture[str]) -> None:
    Report("supervisor").faults([FAULT])
    assert capsys.readouterr().err == "routes.yaml:14:17: wrong-value: expected a number; write 5.0\n"


def test_facts_stand_behind_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    Report("supervisor").of("worker").warning("worker ended", pid=7, cause="SIGKILL")
    assert capsys.readouterr().err == "edge worker warning: worker ended (pid=7, cause=SIGKILL)\n"


def test_text_from_a_file_cannot_write_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Report("supervisor").error("bad\nready public=evil:1", cause="\x1b[2J\r\n")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["edge supervisor error: bad\\x0aready public=evil:1 (cause=\\x1b[2J\\x0d\\x0a)"]


def test_json_lines_hold_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("supervisor", LogFormat.JSON)
    report.ready({"public": "127.0.0.1:8443"})
    report.faults([FAULT])
    report.warning("x\ny", count=1)
    ready, fault, warning = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ready["event"], ready["public"]) == ("ready", "127.0.0.1:8443")
    assert (fault["event"], fault["text"]) == ("fault", str(FAULT))
    assert (warning["event"], warning["level"], warning["count"]) == ("x\ny", "warning", 1)


SECRETS = [
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
    "Authorization: Bearer abcdef0123456789",
    "basic dXNlcjpwYXNzd29yZA==",
    "valkeys://user:hunter22hunter@store:6380/0",
    "password=hunter22hunter",
    "passphrase: hunter22hunter",
    "-----BEGIN PRIVATE KEY-----\nhunter22hunter\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----\nhunter22hunter",
]


@pytest.mark.parametrize("form", LogFormat)
@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_is_masked_wherever_it_comes(
    form: LogFormat, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("test", form)
    report.error(f"cannot use {secret} here", cause=f"tried {secret}")
    report.faults([f"edge.yaml:1:1: rule: got {secret}; write another"])
    shown = capsys.readouterr().err
    for word in ("hunter22hunter", "c2lnbmF0dXJl", "abcdef0123456789", "dXNlcjpwYXNzd29yZA"):
        assert word not in shown


def test_plain_words_are_not_masked(capsys: pytest.CaptureFixture[str]) -> None:
    Report("test").error("password file missing; see https://edge.invalid/a@b", cause="basic check failed: SIGKILL")
    expected = (
        "edge test error: password file missing; see https://edge.invalid/a@b (cause=basic check failed: SIGKILL)\n"
    )
    assert capsys.readouterr().err == expected


def test_object_is_shown_as_its_type_and_an_unlisted_fact_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    Report("test").warning(
        "x", cause=Secret(b"hunter22"), text=b"hunter22", work={"k": "hunter22"}, password="hunter22"
    )
    line = capsys.readouterr().err
    assert line == "edge test warning: x (cause=Secret, text=bytes, work=dict, password=[not a listed fact])\n"


def test_every_fact_reported_anywhere_is_listed() -> None:
    named = set()
    for path in (Path(__file__).parents[3] / "edge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                target = ast.unparse(node.func.value)
                if node.func.attr in ("info", "warning", "error") and target.endswith("report"):
                    named |= {keyword.arg for keyword in node.keywords}
    assert {"cause", "pid"} <= named <= FACTS


def test_bug_is_type_and_places_and_not_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        int("hunter22")
    except ValueError as exc:
        Report("test").unexpected(exc)
    shown = capsys.readouterr().err
    assert re.fullmatch(r"edge test error: internal error \(cause=ValueError, where=\S*test_report\.py:\d+\)\n", shown)


def test_library_is_heard_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    root, handlers, level = logging.root, logging.root.handlers, logging.root.level
    try:
        Report("test", LogFormat.JSON).adopt_logging()
        logging.getLogger("aiohttp.client").warning("token %s", "hunter22")
        logging.getLogger("aiohttp.client").info("nothing")
    finally:
        logging.captureWarnings(capture=False)
        root.handlers, root.level = handlers, level
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["cause"], line["event"]) == ("aiohttp.client", "warning", "a library complains")
    assert "hunter22" not in json.dumps(line)


def test_a_fault_is_one_line_whatever_the_file_says_E8(capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault("a\nb.yaml", 1, 2, "policy-id", "found \x1b[2J\u202e\u2028\x00", "write é")
    Report("test").faults([fault])
    assert capsys.readouterr().err == str(fault) + "\n"
    assert str(fault) == r"a\x0ab.yaml:1:2: policy-id: found \x1b[2J\x202e\x2028\x00; write é"
