"""A WebSocket as it is asked for (RFC 6455 §4) and what one may take. Built by `parse` and `config`."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Handshake:
    """A well-formed wish for a WebSocket."""

    raw_key: bytes
    """`Sec-WebSocket-Key`; empty over HTTP/2, which needs none (RFC 8441 §5)."""
    protocols: tuple[bytes, ...]
    """Subprotocols offered, most wanted first."""
    origin: bytes | None
    """As sent; None when absent, which is what everything but a browser does."""


@dataclass(frozen=True, slots=True)
class WebSocketBounds:
    """What one WebSocket of a route may take; each bound holds for either direction."""

    max_message_bytes: int = 16 << 20
    """Payload of a message; more ends the WebSocket with 1009. As much as Hypercorn takes unless told otherwise."""
    max_message_frames: int = 65_536
    """Of one message: fragments cost work whatever is in them."""
    max_control_frames_per_s: int = 50
    """Pings and pongs of one side, and as many at once; who pings for life needs one in twenty seconds."""
    idle_s: float = 300.0
    """Without a byte from either side; whoever wants to stay pings more often than this."""


DEFAULT_BOUNDS = WebSocketBounds()


def accept_of(raw_key: bytes) -> bytes:
    """`Sec-WebSocket-Accept` for a key: proof that the answer is one to this handshake, and not a secret."""
    return b64encode(sha1(raw_key + _GUID, usedforsecurity=False).digest())
