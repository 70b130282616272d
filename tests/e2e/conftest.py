"""A gateway for each test, made from a home that the tests of a file share. A file whose gateways differ says how by a
fixture `variant` of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.limit_server import REDIS, VALKEY, Server
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import Gateway, Variant, copied, make, serving


@pytest.fixture(scope="module", params=[VALKEY, REDIS], ids=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A store, of either kind that limits are kept in."""
    if request.param is None:
        pytest.skip("redis-server is not installed")
    with TemporaryDirectory(prefix="v") as directory:
        with Server(directory, request.param) as server:
            yield server


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
