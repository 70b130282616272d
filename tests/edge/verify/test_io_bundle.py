"""A bundle that is replaced under a running service counts within a second; one that cannot be used changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from edge.verify import AssertionRefused, BadSettings, Settings
from edge.verify.io_bundle import Watched
from tests.edge.verify.mesh import ORDERS, Mesh, mesh, presented


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def replace(path: Path, pem: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(pem)
    os.replace(fresh, path)


def passes(watched: Watched, by: Mesh) -> bool:
    try:
        watched.verifier().check(presented(by.assertion()), mesh().now_ns, None)
    except AssertionRefused:
        return False
    return True


def test_a_rotated_bundle_counts_after_a_second(tmp_path: Path) -> None:
    path, clock, other = tmp_path / "bundle.pem", Clock(), Mesh(mesh().now)
    path.write_bytes(mesh().bundle_pem)
    watched = Watched(Settings(ORDERS), path, clock)
    replace(path, other.bundle_pem)
    assert passes(watched, mesh())
    clock.now_s = 1.0
    assert passes(watched, other)
    assert not passes(watched, mesh())


def test_a_bundle_that_cannot_be_used_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "bundle.pem", Clock()
    path.write_bytes(mesh().bundle_pem)
    watched = Watched(Settings(ORDERS), path, clock)
    # no certificate; a leaf; authorities without roles; gone
    for bad in (b"garbage", mesh().gateway.pem, mesh().root.pem, None):
        caplog.clear()
        if bad is None:
            path.unlink()
        else:
            replace(path, bad)
        for _ in range(3):
            clock.now_s += 1
            assert passes(watched, mesh())
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
    path.write_bytes(mesh().bundle_pem)
    before = watched.verifier()
    clock.now_s += 1
    assert watched.verifier() is not before


@pytest.mark.parametrize("pem", [None, b"", b"x" * ((1 << 20) + 1)])
def test_without_a_bundle_nothing_starts(tmp_path: Path, pem: bytes | None) -> None:
    path = tmp_path / "bundle.pem"
    if pem is not None:
        path.write_bytes(pem)
    with pytest.raises(BadSettings):
        Watched(Settings(ORDERS), path)
