"""A question to a gateway: nothing is sent before it has proven itself; an answer is whole or none; connections are kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

import pytest
import trustme

from edge.serve.gateway_call import CallFailed, GatewayCall, GatewayCalls, Impostor
from pki.errors import SvidRejected

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Listener:
    """Answers one thing after the other; `None` closes instead. Keeps what it was asked."""

    def __init__(self, authority: trustme.CA, answers: Sequence[bytes | None]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._answers: Iterator[bytes | None] = iter(answers)
        self.asked: list[bytes] = []
        self.connections = 0
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.check_hostname = False
        authority.configure_trust(self.client)

    async def __aenter__(self) -> Listener:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
                self.asked.append(head + await reader.readexactly(length))
                answer = next(self._answers)
                if answer is None:
                    break
                writer.write(answer)
        writer.close()


def playing(
    authority: trustme.CA,
    answers: Sequence[bytes | None],
    work: Callable[[GatewayCall, Listener], Awaitable[None]],
    prove: Callable[[ssl.SSLObject], object] = lambda handshake: None,
    believed: trustme.CA | None = None,
) -> Listener:
    async def main() -> Listener:
        async with Listener(authority, answers) as listener:
            if believed is not None:
                listener.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                listener.client.check_hostname = False
                believed.configure_trust(listener.client)
            call = GatewayCall(listener.address, listener.client, prove)
            try:
                await work(call, listener)
            finally:
                call.close()
        return listener

    return asyncio.run(main())


def test_one_connection_serves_many_questions(authority: trustme.CA) -> None:
    async def work(call: GatewayCall, listener: Listener) -> None:
        for _ in range(3):
            answer = await call.ask("PUT", "/a", [(b"x-b", b"c")], b"body")
            assert (answer.status, answer.body, answer.field(b"content-length")) == (200, b"ok", b"2")

    listener = playing(authority, [OK] * 3, work)
    host = b"%b:%d" % (listener.address[0].encode(), listener.address[1])
    asked = b"PUT /a HTTP/1.1\r\nhost: " + host + b"\r\nx-b: c\r\ncontent-length: 4\r\n\r\nbody"
    assert (listener.connections, listener.asked) == (1, [asked] * 3)


def test_what_was_closed_while_it_waited_is_asked_again_where_that_is_safe(authority: trustme.CA) -> None:
    async def work(call: GatewayCall, listener: Listener) -> None:
        assert (await call.ask("GET", "/")).body == b"ok"
        assert (await call.ask("GET", "/")).body == b"ok"

    assert playing(authority, [OK, None, OK], work).connections == 2


def test_a_post_is_never_sent_on_a_connection_that_may_be_closing(authority: trustme.CA) -> None:
    async def work(call: GatewayCall, listener: Listener) -> None:
        await call.ask("GET", "/")
        await call.ask("POST", "/", body=b"once")

    assert playing(authority, [OK, OK], work).connections == 2


def test_who_does_not_prove_to_be_the_gateway_gets_not_one_byte(authority: trustme.CA) -> None:
    def prove(handshake: ssl.SSLObject) -> None:
        raise SvidRejected("spiffe-id", "somebody else")

    async def work(call: GatewayCall, listener: Listener) -> None:
        with pytest.raises(Impostor, match="somebody else"):
            await call.ask("POST", "/", body=b"secret")

    assert playing(authority, [OK], work, prove).asked == []


def test_another_authority_is_an_impostor(authority: trustme.CA) -> None:
    async def work(call: GatewayCall, listener: Listener) -> None:
        with pytest.raises(Impostor, match="chain-untrusted"):
            await call.ask("POST", "/", body=b"secret")

    assert playing(authority, [OK], work, believed=trustme.CA()).asked == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 1_100_000,
    ],
)
def test_what_is_not_one_whole_answer_fails(authority: trustme.CA, answer: bytes | None) -> None:
    async def work(call: GatewayCall, listener: Listener) -> None:
        with pytest.raises(CallFailed):
            await call.ask("POST", "/", body=b"x")

    playing(authority, [answer], work)


def test_nobody_there_fails() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        server.close()
        await server.wait_closed()
        with pytest.raises(CallFailed, match="dial"):
            await GatewayCall(address, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda tls: None).ask("GET", "/")

    asyncio.run(main())


# -- several gateways --------------------------------------------------------------------------------

NOT_HERE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"


def asking(authority: trustme.CA, first: Sequence[bytes | None], second: Sequence[bytes | None], times: int) -> str:
    """Who answered, and what: 1 and 2 with the status, or `failed`."""

    async def main() -> str:
        async with Listener(authority, first) as one, Listener(authority, second) as two:
            calls = GatewayCalls(
                [GatewayCall(each.address, each.client, lambda handshake: None) for each in (one, two)]
            )
            told = []
            for _ in range(times):
                before = len(one.asked), len(two.asked)
                try:
                    status = str((await calls.ask("GET", "/")).status)
                except CallFailed:
                    status = "failed"
                heard = [
                    name for name, each, had in zip("12", (one, two), before, strict=True) if len(each.asked) > had
                ]
                told.append(f"{''.join(heard)}:{status}")
            calls.close()
        return " ".join(told)

    return asyncio.run(main())


def test_the_first_gateway_is_asked_while_it_answers(authority: trustme.CA) -> None:
    assert asking(authority, [OK, OK], [], 2) == "1:200 1:200"


def test_where_one_is_gone_the_next_is_asked_and_from_then_on(authority: trustme.CA) -> None:
    assert asking(authority, [None, OK], [OK, OK, None, None], 3) == "12:200 2:200 12:200"


def test_who_has_no_answer_now_passes_one_question_on_and_is_asked_again(authority: trustme.CA) -> None:
    """It registers, and has no authority."""
    assert asking(authority, [NOT_HERE, OK], [OK], 2) == "12:200 1:200"


def test_when_nobody_answers_the_last_one_s_word_counts(authority: trustme.CA) -> None:
    assert asking(authority, [None, NOT_HERE], [None, NOT_HERE], 2) == "12:failed 12:503"
