"""The head of an answer in HTTP/1.1 wire form, and what of a head in bytes is wrong."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import termios
from http import HTTPStatus

from edge.errors import EdgeError, HeadersTooLarge, MalformedRequest, UriTooLong
from edge.model.http import RawField
from edge.parse.request import MAX_TARGET_BYTES

MAX_HEAD_BYTES = 32_768
_MAX_LINE_BYTES = MAX_TARGET_BYTES + 32

REQUEST_LINE = re.compile(rb"[A-Z]{3,7} [!-~\x80-\xff]+ HTTP/1\.[01]\r\n")
"""What llhttp is looser about: one space, upper-case method, version 1.0 or 1.1, CRLF (RFC 9112 §3)."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_UPGRADE_AND_CLOSE = b"upgrade: websocket\r\nconnection: upgrade, close\r\n\r\n"
"""RFC 9110 §15.5.22: whoever says 426 names what it asks for."""

_STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}


def fault_in_head(head: bytes) -> EdgeError | None:
    """What of a whole head is wrong before any parser sees it."""
    if len(head) <= MAX_HEAD_BYTES and REQUEST_LINE.match(head) is not None:
        return None
    if head.find(b"\n", 0, _MAX_LINE_BYTES) < 0:
        return UriTooLong("request-line")
    return HeadersTooLarge("head-size") if len(head) > MAX_HEAD_BYTES else MalformedRequest("request-line")


def fault_in_part(data: bytes) -> EdgeError | None:
    """Why a part of a head can no longer become a good one."""
    line_end = data.find(b"\n")
    if line_end < 0:
        return UriTooLong("request-line") if len(data) > _MAX_LINE_BYTES else None
    if line_end > _MAX_LINE_BYTES or len(data) > MAX_HEAD_BYTES:
        return fault_in_head(data)
    if data.count(b"\n") != data.count(b"\r\n"):
        return MalformedRequest("bare-line-feed")
    return fault_in_head(data) if line_end else None


def answer_head(
    status: int,
    fields: list[RawField],
    content_length: int | None,
    date_line: bytes,
    *,
    is_chunked: bool,
    is_closing: bool,
) -> bytes:
    """Status line, fields and the empty line.

    `content_length` is written unless the answer cannot have one (1xx, 204; RFC 9110 §8.6); for HEAD and 304 it says what
    GET would have sent.
    """
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    lines = b"\r\n".join([name + b": " + value for name, value in fields])  # a third cheaper than formatting each
    if lines:
        lines += b"\r\n"
    if not lines.startswith(b"date: ") and b"\ndate: " not in lines:  # a value holds no line feed
        lines += date_line
    if is_chunked:
        lines += b"transfer-encoding: chunked\r\n"
    elif content_length is not None and status != 204:
        lines += b"content-length: %d\r\n" % content_length
    if not is_closing:
        return b"%b%b\r\n" % (status_line, lines)
    return b"%b%b%b" % (status_line, lines, _UPGRADE_AND_CLOSE if status == 426 else b"connection: close\r\n\r\n")


def untaken_bytes(transport: asyncio.Transport) -> int:
    """What was written and the client's kernel has not acknowledged: in the transport, and in ours (tcp(7), TIOCOUTQ)."""
    raw_socket = transport.get_extra_info("socket")
    if raw_socket is None:
        return 0  # it was aborted
    try:
        (in_kernel,) = struct.unpack("i", fcntl.ioctl(raw_socket.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):
        return 0  # it is gone already
    return int(in_kernel) + transport.get_write_buffer_size()


def taken_bytes(transport: asyncio.Transport) -> int:
    """What the client's kernel has acknowledged since the connection began (tcp(7), TCP_INFO).

    Not what was written less what is left: between the TLS of a transport and the kernel lies a queue that nobody can see,
    and while it drains a client that reads would look like one that does not.
    """
    raw_socket = transport.get_extra_info("socket")
    if raw_socket is None:
        return 0  # it was aborted
    try:
        found: int = struct.unpack_from("Q", raw_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128), 120)[0]
    except (OSError, ValueError, struct.error):
        return 0  # it is gone already, or the kernel is older than 4.1
    return found


def reset(transport: asyncio.Transport) -> None:
    """End the connection now, and with it what the client has not taken: behind a mere close the kernel would keep that for
    as long as the client likes, and the client would never notice (socket(7), SO_LINGER)."""
    raw_socket = transport.get_extra_info("socket")
    if raw_socket is not None and untaken_bytes(transport):
        try:
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (OSError, ValueError):
            pass  # it is gone already
    transport.abort()
