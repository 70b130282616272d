"""The public shells: bytes of a downstream ⇄ the line."""

from edge.accept.deadlines import Deadlines
from edge.front.front import SWEEP_S, Front
from edge.front.gate import Gate
from edge.front.http1 import Http1
from edge.front.http2 import Http2
from edge.front.hypercorn import HypercornHttp2
from edge.front.proof import Doorkeeper, Proof, revoke
from edge.front.websocket_http2 import take_tunnel

__all__ = [
    "SWEEP_S",
    "Deadlines",
    "Doorkeeper",
    "Front",
    "Gate",
    "Http1",
    "Http2",
    "HypercornHttp2",
    "Proof",
    "revoke",
    "take_tunnel",
]
