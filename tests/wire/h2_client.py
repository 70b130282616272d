"""An HTTP/2 client that a test drives frame by frame: the `h2` library without its outbound judgement, on a TLS socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.wire.rig import Answer, Listening, client_context

Fields = Sequence[tuple[bytes, bytes]]


class Reset(Exception):
    """The gateway reset the stream; `code` is its error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Goaway(Exception):
    """The gateway ended the connection; `code` is its error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class H2Client:
    """One connection. Nothing that a test sends is validated or normalised on the way out."""

    def __init__(
        self,
        gateway: Listening,
        server_name: str | None = "localhost",
        *,
        window: int = 1 << 24,
        acks: bool = True,
        source: str = "127.0.0.1",
    ) -> None:
        context = client_context(gateway, "h2", "http/1.1")
        if server_name is None:
            context.check_hostname = False
        raw = socket.create_connection(("127.0.0.1", gateway.public), 5, (source, 0))
        try:
            self.tls = context.wrap_socket(raw, server_hostname=server_name)
        except OSError:
            raw.close()
            raise
        assert self.tls.selected_alpn_protocol() == "h2"
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )
        self.connection.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self.acks = acks
        self.ended: set[int] = set()
        self.heads: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.resets: dict[int, int] = {}
        self.interim: dict[int, list[int]] = {}
        self.goaways: list[int] = []
        self.is_over = False
        self.connection.initiate_connection()
        if acks:
            self.connection.increment_flow_control_window(1 << 24)
        self.flush()

    def flush(self) -> None:
        self.tls.sendall(self.connection.data_to_send())

    def request(
        self,
        method: str = "GET",
        path: str | bytes = "/orders/7",
        fields: Fields = (),
        *,
        body: bytes | None = None,
        authority: bytes = b"localhost",
    ) -> int:
        """Send a well-formed head, and the body whole if there is one; gives the stream's number."""
        raw_path = path if isinstance(path, bytes) else path.encode("ascii")
        head = [
            (b":method", method.encode("ascii")),
            (b":scheme", b"https"),
            (b":authority", authority),
            (b":path", raw_path),
            *fields,
        ]
        return self.head(head, body=body)

    def head(self, head: Fields, *, body: bytes | None = None, is_end: bool = True) -> int:
        """Send any head at all. `is_end` says whether the request ends with its head (or with its body)."""
        stream: int = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, list(head), end_stream=is_end and body is None)
        self.flush()
        if body is not None:
            self.send(stream, body, is_end=is_end)
        return stream

    def send(self, stream: int, body: bytes, *, is_end: bool = False) -> None:
        """Send of a body, waiting for windows; what the gateway answers meanwhile is kept."""
        left = memoryview(body)
        while len(left):
            if stream in self.ended or stream in self.resets:
                return
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if not room:
                self.pump()
                continue
            piece, left = left[:room], left[room:]
            self.connection.send_data(stream, bytes(piece))
            self.flush()
        if is_end:
            self.connection.end_stream(stream)
            self.flush()

    def send_what_fits(self, stream: int, limit: int, quiet_s: float = 0.4) -> int:
        """Send zeros until the gateway takes no more for a while; how many it took."""
        sent = 0
        self.tls.settimeout(quiet_s)
        try:
            while sent < limit:
                room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
                if room:
                    self.connection.send_data(stream, bytes(room))
                    self.flush()
                    sent += room
                else:
                    self.pump()
        except TimeoutError:
            pass
        finally:
            self.tls.settimeout(9)
        return sent

    def reset(self, stream: int, code: int = 8) -> None:
        self.connection.reset_stream(stream, code)
        self.flush()

    def pump(self) -> None:
        """Read once."""
        data = self.tls.recv(65536)
        if not data:
            self.is_over = True
            raise EOFError
        for event in self.connection.receive_data(data):
            self._on(event)
        with contextlib.suppress(OSError):
            self.flush()

    def pump_until_quiet(self, quiet_s: float) -> None:
        self.tls.settimeout(quiet_s)
        with contextlib.suppress(TimeoutError):
            while True:
                self.pump()
        self.tls.settimeout(9)

    def pump_until_closed(self) -> None:
        """Read until the gateway has closed. Raises: TimeoutError when it does not."""
        with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
            while True:
                self.pump()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = list(event.headers)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.interim.setdefault(event.stream_id, []).append(int(dict(event.headers)[b":status"]))
        elif isinstance(event, h2.events.DataReceived):
            self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
            if self.acks:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets.setdefault(event.stream_id, int(event.error_code or 0))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append(int(event.error_code or 0))
            if not event.error_code:  # a graceful end: the library would not read the answers under way (RFC 9113 §6.8)
                self.connection.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    def answer(self, stream: int) -> Answer:
        """Read until the stream has ended. Raises: Reset, Goaway, EOFError."""
        while stream not in self.ended:
            if stream in self.resets:
                raise Reset(self.resets[stream])
            if any(self.goaways):
                raise Goaway(self.goaways[-1])
            self.pump()
        fields: dict[str, str] = {}
        for raw_name, raw_value in self.heads[stream]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return Answer(int(fields.pop(":status")), fields, bytes(self.bodies.get(stream, b"")))

    def ask(
        self, method: str = "GET", path: str | bytes = "/orders/7", fields: Fields = (), *, body: bytes | None = None
    ) -> Answer:
        return self.answer(self.request(method, path, fields, body=body))

    def close(self) -> None:
        self.tls.close()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
