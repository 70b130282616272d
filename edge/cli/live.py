"""What the running gateway says on its admin listener, for commands that show it. Its supervisor knows where that is."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from edge.cli.locate import locate
from edge.errors import UnsafeState
from edge.serve.control_socket import ask
from edge.serve.run_state import run_of

_PATIENCE_S = 10.0


def fetch(config: Path | None, path: str) -> dict[str, Any]:
    """The JSON object at `path`.

    Raises: UnsafeState when no gateway runs here, or it has no admin listener.
    """
    status = ask(run_of(locate(config)), "status", _PATIENCE_S).status
    address = status.listeners.get("admin") if status is not None else None
    if address is None:
        raise UnsafeState("the gateway has no admin listener to ask; add listeners.admin and restart it")
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_PATIENCE_S)
    try:
        connection.request("GET", path, headers={"host": f"{host}:{port}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise UnsafeState(f"the gateway answers {answer.status} for {path}; look at its own output")
        found: dict[str, Any] = json.loads(body)
        return found
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise UnsafeState(
            f"{address}: no answer for {path} ({type(exc).__name__}); look at the gateway's output"
        ) from exc
    finally:
        connection.close()
