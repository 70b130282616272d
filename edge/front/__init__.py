"""The public shells: bytes of a downstream ⇄ the line."""

from edge.front.deadlines import Deadlines
from edge.front.front import Front
from edge.front.http1 import Http1

__all__ = ["Deadlines", "Front", "Http1"]
