"""The public shells: bytes of a downstream ⇄ the line."""

from edge.front.deadlines import Deadlines
from edge.front.front import Front
from edge.front.gate import Gate
from edge.front.http1 import Http1
from edge.front.hypercorn import Http2

__all__ = ["Deadlines", "Front", "Gate", "Http1", "Http2"]
