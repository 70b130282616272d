"""The answering half of an HTTP/1.1 connection: what an exchange says → bytes on the wire (RFC 9112 §4, §6, §7)."""

from __future__ import annotations

import asyncio

from edge.front.front import Connection, Front
from edge.front.wire import CONTINUE, answer_head
from edge.model.http import RawField
from edge.model.identity import Peer


class Answering(Connection):
    """Makes the bytes; who reads also knows when they leave, and what follows them."""

    __slots__ = (
        "_front",
        "_is_answered",
        "_is_chunked_answer",
        "_keep_alive",
        "_out",
        "_protocol",
        "_transport",
        "peer",
    )

    _transport: asyncio.Transport
    peer: Peer

    def __init__(self, front: Front) -> None:
        self._front = front
        self._out: list[bytes] = []
        self._protocol = "1.1"
        """Of the request."""
        self._keep_alive = True
        self._is_chunked_answer = self._is_answered = False

    def send_head(self, status: int, fields: list[RawField], content_length: int | None, *, has_body: bool) -> None:
        front = self._front
        self._is_chunked_answer = has_body and content_length is None and self._protocol == "1.1"
        if (has_body and content_length is None and not self._is_chunked_answer) or front.is_draining:
            self._keep_alive = False
        self._out.append(
            answer_head(
                status,
                fields,
                content_length,
                front.date_line(),
                is_chunked=self._is_chunked_answer,
                is_closing=not self._keep_alive,
            )
        )

    def send_body(self, body: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked_answer else body)

    def send_end(self) -> None:
        if self._is_chunked_answer:
            self._out.append(b"0\r\n\r\n")
        self._is_answered = True

    def send_continue(self) -> None:
        self._front.writes.write_now(self._transport, CONTINUE)

    def must_close(self) -> None:
        self._keep_alive = False
