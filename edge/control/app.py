"""The Quart application of one listener's control plane, made from its rows of the table.

It is an upstream (`forward/asgi.py`), so whoever gets here was admitted by the line, and Quart's own routing finds again what
the line matched.
"""

from __future__ import annotations

import re
from functools import partial

from quart import Quart

from edge.control.inside import Inside
from edge.control.table import ROUTES


def create_app(listener: str, inside: Inside) -> Quart:
    """`listener` is a key of `ROUTES`."""
    app = Quart(f"edge.control.{listener}")
    # What a handler raises comes out of the application, and ends as any failure of an upstream does: one error format.
    app.config["PROPAGATE_EXCEPTIONS"] = True
    for row in ROUTES[listener]:
        path = re.sub(r"\{(\w+)\}", r"<\1>", row.path)
        app.add_url_rule(path, row.name, partial(row.handle, inside), methods=list(row.methods))
    return app
