"""Asks the gateway over HTTP/2, as `Connection` does over HTTP/1.1: one request at a time, and each in the journal."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import TracebackType

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from examples.demo.caller import HOST, PATIENCE_S, Answer, Journal
from examples.demo.promise import Broken


class Http2Connection:
    """One connection to the public listener, on which the handshake chose `h2`."""

    def __init__(self, port: int, anchors: Path, journal: Journal) -> None:
        context = ssl.create_default_context(cafile=anchors)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._journal = journal
        self._socket = context.wrap_socket(socket.create_connection((HOST, port), PATIENCE_S), server_hostname=HOST)
        if self._socket.selected_alpn_protocol() != "h2":
            raise Broken(f"the gateway chose {self._socket.selected_alpn_protocol()} and not h2")
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self._http.initiate_connection()

    def __enter__(self) -> Http2Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, token: str | None = None, *, body: bytes = b"") -> Answer:
        """One request and its answer."""
        fields = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
        if token is not None:
            fields.append(("authorization", f"Bearer {token}"))
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(stream, fields, end_stream=not body)
        if body:
            self._http.send_data(stream, body, end_stream=True)
        answer = self._answer(stream)
        self._journal.note(method, path, answer)
        return answer

    def _answer(self, stream: int) -> Answer:
        found: dict[str, str] = {}
        body = b""
        while True:
            for event in self._events():
                if isinstance(event, ResponseReceived):
                    found = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, DataReceived):
                    body += event.data
                    self._http.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, StreamReset):
                    raise ConnectionResetError(f"the gateway reset the stream: {event.error_code}")
                elif isinstance(event, StreamEnded):
                    self._socket.sendall(self._http.data_to_send())
                    return Answer(int(found.pop(":status")), found, body)

    def _events(self) -> list[Event]:
        """Send what is due, and read once."""
        self._socket.sendall(self._http.data_to_send())
        raw = self._socket.recv(65536)
        if not raw:
            raise ConnectionResetError("the gateway closed the connection")
        events: list[Event] = self._http.receive_data(raw)
        return events
