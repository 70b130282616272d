"""The listeners for services and for those who want to become one: Quart on Hypercorn behind a gate that knows who connects.

    services   a client certificate of one of our services is required; shows who the gateway is: its own identity
    enrol      whoever has a one-time token; no certificate is asked for

HTTP/1.1 is read by the same shell as on the public listener, HTTP/2 by the hardened Hypercorn (decision 0031).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from quart import Quart

from edge.accept.tls import Pair, control_context
from edge.assemble import WorkerShared, client_trust
from edge.config.settings import Config
from edge.dataplane import DataPlane
from edge.forward.asgi import AsgiApp
from edge.front import Doorkeeper, Front, Gate, HypercornHttp2, Proof
from edge.observe import Gauge
from edge.pipeline import Gateway
from edge.serve.sockets import borrow
from pki.bundle import Bundle

DOOR_GAUGES = {"services": Gauge.SERVICES_CONNECTIONS, "enrol": Gauge.ENROL_CONNECTIONS}
"""Where the board says how many connections each has."""


class Door:
    """One of these listeners. Owner: `Serving`."""

    def __init__(self, name: str, sock: socket.socket, app: Quart, front: Front) -> None:
        """`app` is the control app of this listener, and has the line put around it here. `sock` stays the worker's."""
        self.front = front
        self._sock = sock
        self._plane = DataPlane(front, cast(AsgiApp, app.asgi_app))
        app.asgi_app = self._plane  # type: ignore[method-assign, assignment]
        front.take_http2 = lambda transport: HypercornHttp2(front, transport, app)
        self._gate: Gate | None = None

    def open(self, proof: Proof) -> None:
        """Accept, or go on with another proof: a fresh context on the same queue, so nothing that waits there is reset."""
        before = self._gate
        self._gate = Gate(self.front, borrow(self._sock), proof.context, Doorkeeper(self.front, proof))
        if before is not None:
            before.close()

    def adopt(self, gateway: Gateway, proof: Proof) -> None:
        """The next request is decided by this generation, the next handshake made with it."""
        self.front.gateway = gateway
        if self._gate is not None:
            self.open(proof)

    def sweep(self) -> None:
        self.front.sweep()
        self._plane.sweep()

    def close(self) -> None:
        """Take no new connection."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()


def proofs(config: Config, shared: WorkerShared) -> Mapping[str, Proof]:
    """What each of the listeners that are opened asks.

    Raises: ssl.SSLError, OSError; told when a generation is prepared, not when it serves.
    """
    found = {}
    identity = config.identity
    own = Pair(identity.chain, identity.key.reveal())
    if "services" in config.opened:
        found["services"] = Proof(control_context(own, identity.bundle), client_trust(config, shared))
    if "enrol" in config.opened:
        found["enrol"] = Proof(control_context(_public_pair(config) or own, None), None)
    return found


def _public_pair(config: Config) -> Pair | None:
    """What `enrol` shows: the public listener's certificate where our own CA issued it, else (None) the gateway's identity.

    Who enrols has the root's fingerprint and an ordinary TLS client, which compares host names: the public certificate holds
    the names by which this gateway is reached, its SPIFFE identity only `<name>.internal`. A certificate from elsewhere does
    not lead to the root that was pinned, so then the gateway's own is the one that can be verified at all.
    """
    anchors = [x509.load_der_x509_certificate(der) for der in Bundle.parse(config.identity.bundle).anchors]
    for shown in config.listeners.public.shown:
        for pair in shown.pairs:
            last = x509.load_pem_x509_certificates(pair.chain_pem)[-1]
            if any(last.issuer == anchor.subject and _signed(last, anchor) for anchor in anchors):
                return pair
    return None


def _signed(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(anchor)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
