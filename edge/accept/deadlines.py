"""How long a downstream may take, in seconds. Each bound exists because somebody slower than it holds a connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time bounds of one downstream connection."""

    handshake_s: float = 10.0
    """TCP accept to the end of the TLS handshake; browsers on bad networks need 2–3 s."""
    head_s: float = 10.0
    """First byte of a head to its end; also from the handshake to the acknowledgement of our SETTINGS (RFC 9113 §6.5.3)."""
    idle_s: float = 60.0
    """Between two requests on a connection that is kept alive."""
    body_s: float = 30.0
    """Without one byte of a body that was announced; each byte that comes gives `1 / least_bytes_per_s` more, up to this."""
    write_s: float = 30.0
    """In which a downstream that is behind takes what `least_bytes_per_s` makes of it."""
    least_bytes_per_s: float = 240.0
    """Of a body or an answer: what a modem of 1995 managed tenfold. Slower is somebody who holds on to a connection."""
    linger_s: float = 2.0
    """After an answer that closes, for the client to read it before the socket goes."""
    drain_s: float = 4.0
    """After SIGTERM, for requests in flight."""
