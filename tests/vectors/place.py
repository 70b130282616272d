"""Where the published vectors lie: `EDGE_VECTORS`, relative to the repository root, by default ../shared/vectors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / os.environ.get("EDGE_VECTORS", "../shared/vectors")


def load(name: str, otherwise: Any) -> Any:
    """A JSON file of the vectors, or `otherwise` where they are not; then conftest skips what wants them."""
    file = VECTORS / name
    return json.loads(file.read_bytes()) if file.exists() else otherwise
