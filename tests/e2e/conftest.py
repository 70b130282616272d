"""A gateway for each test, made from a home that the tests of a file share. A file whose gateways differ says how by a
fixture `variant` of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, copied, make, serving


@pytest.fixture(scope="module")
def variant() -> Variant:
    return Variant()


@pytest.fixture(scope="module")
def template(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied, never used."""
    return make(tmp_path_factory.mktemp("template") / "edge", variant)


@pytest.fixture
def service(template: Path) -> Iterator[Upstream]:
    service = Upstream(template / "orders")
    yield service
    service.close()


@pytest.fixture
def directory(template: Path, service: Upstream, tmp_path: Path) -> Path:
    return copied(template, tmp_path / "edge", service.port)


@pytest.fixture
def gateway(directory: Path) -> Iterator[Gateway]:
    with serving(directory) as gateway:
        yield gateway
