from __future__ import annotations

import os
import signal
import threading

import pytest

from edge.config.io_check import check
from edge.config.settings import Config
from edge.config.sources import Sources
from tests.edge.config.house import sources


def test_valid_configuration_comes_back_with_its_routes_and_hash() -> None:
    checked = check(sources())
    assert (checked.faults, checked.bundle_hash) == ((), sources().bundle_hash)
    assert [route.name for route in checked.routes] == ["orders"]
    assert checked.hosts == ("localhost", "api.example.com", "[::1]")


def test_faults_come_back_as_they_are() -> None:
    (fault,) = check(sources(policies={"limits.yaml": "limits: 7\n"})).faults
    assert (fault.file, fault.rule) == ("policies/limits.yaml", "wrong-type")


def crash(_sources: Sources) -> Config:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def stray(_sources: Sources) -> Config:
    raise RuntimeError("a bug")


def hang(_sources: Sources) -> Config:
    threading.Event().wait()
    raise AssertionError


def test_native_crash_is_one_diagnostic() -> None:
    (fault,) = check(sources(), crash).faults
    assert (fault.rule, fault.message) == ("parser-died", "the process that judges the files was ended by SIGKILL")


def test_bug_is_one_diagnostic_and_told(capfd: pytest.CaptureFixture[str]) -> None:
    (fault,) = check(sources(), stray).faults
    assert "ended with code 70" in fault.message
    assert "RuntimeError: a bug" in capfd.readouterr().err


def test_hanging_judge_is_ended() -> None:
    (fault,) = check(sources(), hang, timeout_s=0.05).faults
    assert "did not end within 0.05 s" in fault.message
