"""A ClientHello whose bytes a test may cut as it likes: into TLS records and into TCP segments."""

from __future__ import annotations

import socket
import ssl
import struct

from tests.wire.rig import Listening

_HANDSHAKE, _ALERT = 22, 21
_UNRECOGNIZED_NAME = 112


class Hello:
    """One handshake message for a server name, which need not be a name at all."""

    def __init__(self, gateway: Listening, name: str) -> None:
        self._port = gateway.public
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stand_in = "n" * len(name)
        session = context.wrap_bio(incoming, outgoing, server_hostname=stand_in)
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        flight = outgoing.read()
        assert flight[0] == _HANDSHAKE
        assert flight.count(stand_in.encode()) == 1
        self._message = flight[5:].replace(stand_in.encode(), name.encode())
        self._version = flight[1:3]

    def flight(self) -> bytes:
        """All of it, in one record."""
        return struct.pack("!B2sH", _HANDSHAKE, self._version, len(self._message)) + self._message

    def sent(self, record: int, segment: int) -> str:
        """What the gateway said to it: `unrecognized_name`, `server hello`, or anything else by number."""
        pieces = [self._message[at : at + record] for at in range(0, len(self._message), record)]
        flight = b"".join(
            struct.pack("!B2sH", _HANDSHAKE, self._version, len(piece)) + piece for piece in pieces
        )  # RFC 8446 §5.1: a message may span records
        with socket.create_connection(("127.0.0.1", self._port), 15) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(flight), segment):
                raw.sendall(flight[at : at + segment])
            answer = b""
            while len(answer) < 7:
                piece = raw.recv(4096)
                if not piece:
                    return "nothing"
                answer += piece
        if answer[0] == _ALERT and answer[6] == _UNRECOGNIZED_NAME:
            return "unrecognized_name"
        return "server hello" if answer[0] == _HANDSHAKE else f"{answer[0]}: {answer[5:7].hex()}"
