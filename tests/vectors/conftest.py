"""Without the published vectors these tests have nothing to say, and say so."""

from __future__ import annotations

import pytest

from tests.vectors.place import VECTORS


@pytest.fixture(autouse=True, scope="module")
def published_vectors() -> None:
    if not VECTORS.is_dir():
        pytest.skip(f"no published vectors in {VECTORS}; set EDGE_VECTORS to their directory")
