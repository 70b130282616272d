"""Lines on stderr."""

from __future__ import annotations

import json

import pytest

from edge.errors import Fault
from edge.serve.report import LogFormat, Report

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
    report.warning("x\ny", n=1)
    ready, fault, warning = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ready["event"], ready["public"]) == ("ready", "127.0.0.1:8443")
    assert (fault["event"], fault["text"]) == ("fault", str(FAULT))
    assert (warning["event"], warning["level"], warning["n"]) == ("x\ny", "warning", 1)
