"""Who is asked without a certificate, what counts as being refused, and what follows from each outcome."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.accept.tls import anonymous_context
from edge.errors import EdgeError, UpstreamIdentityRejected, UpstreamTimeout, UpstreamUnreachable
from edge.forward import io_insist
from edge.forward.io_insist import Insistence, Turn, Where, insists
from tests.e2e.outside import ROOT, Leaf
from tests.e2e.rogue import Rogue
from tests.wire.rig import OK

HERE: Where = ("spiffe://mesh.internal/svc/orders", ("127.0.0.1", 9101))
PROBE = b"HEAD / HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: edge-probe\r\nconnection: close\r\n\r\n"


def context_of(directory: Path, verify_mode: ssl.VerifyMode) -> ssl.SSLContext:
    chain, key = ROOT.sign(Leaf())
    (directory / "pair.pem").write_bytes(key + b"\n" + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "pair.pem")
    context.load_verify_locations(cadata=ROOT.pem.decode("ascii"))
    context.verify_mode = verify_mode
    return context


class Mute(Rogue):
    """One that listens."""

    def _serve(self, connection: socket.socket) -> None:
        assert self.context is not None
        with self.context.wrap_socket(connection, server_side=True) as tls:
            while tls.recv(65536):
                pass


@contextmanager
def service(context: ssl.SSLContext | None, answer: bytes, kind: type[Rogue] = Rogue) -> Iterator[Rogue]:
    rogue = kind(0, context, answer=answer)
    try:
        yield rogue
    finally:
        rogue.close()


async def outcome(rogue: Rogue, prove: Callable[[ssl.SSLObject], object] = lambda handshake: None) -> str:
    try:
        await insists(("127.0.0.1", rogue.port), anonymous_context(ROOT.pem), prove)
    except EdgeError as exc:
        return exc.rule  # type: ignore[attr-defined,no-any-return]
    return "insists"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"", "insists"),
        (b"HTTP/1.1 400 No required SSL certificate was sent\r\n\r\n", "insists"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "insists"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "insists"),
        (b"HTTP/1.1 495 \r\n\r\n", "insists"),
        (b"HTTP/1.1 496\r\n\r\n", "insists"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 405 \r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 500 \r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 301 \r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "accepts-anyone"),
        (b"HTTP/1.1 4000 \r\n\r\n", "accepts-anyone"),
        (b"HTTP/2 403 \r\n\r\nbecause", "accepts-anyone"),
        (b"\x00", "accepts-anyone"),
    ],
)
@pytest.mark.asyncio
async def test_only_a_refusal_is_a_refusal_P41(tmp_path: Path, answer: bytes, found: str) -> None:
    with service(context_of(tmp_path, ssl.CERT_NONE), answer) as rogue:
        assert await outcome(rogue) == found
        assert rogue.received == PROBE


@pytest.mark.asyncio
async def test_a_handshake_that_wants_a_certificate_is_a_refusal_before_any_byte_P41(tmp_path: Path) -> None:
    with service(context_of(tmp_path, ssl.CERT_REQUIRED), b"HTTP/1.1 200 OK\r\n\r\n") as rogue:
        assert await outcome(rogue) == "insists"
        assert rogue.received == b""


@pytest.mark.asyncio
async def test_who_asks_for_a_certificate_and_takes_none_accepts_anyone_P41(tmp_path: Path) -> None:
    with service(context_of(tmp_path, ssl.CERT_OPTIONAL), b"HTTP/1.1 200 OK\r\n\r\n") as rogue:
        assert await outcome(rogue) == "accepts-anyone"


@pytest.mark.asyncio
async def test_a_handshake_that_fails_otherwise_is_a_refusal_too() -> None:
    with service(None, OK) as rogue:
        assert await outcome(rogue) == "insists"


@pytest.mark.asyncio
async def test_nothing_is_sent_to_who_is_not_the_service(tmp_path: Path) -> None:
    def prove(handshake: ssl.SSLObject) -> None:
        raise UpstreamIdentityRejected("spiffe-id")

    with service(context_of(tmp_path, ssl.CERT_NONE), b"HTTP/1.1 200 OK\r\n\r\n") as rogue:
        assert await outcome(rogue, prove) == "spiffe-id"
        assert rogue.received == b""


@pytest.mark.asyncio
async def test_an_authority_we_do_not_know_proves_nothing(tmp_path: Path) -> None:
    with service(context_of(tmp_path, ssl.CERT_NONE), b"HTTP/1.1 403 \r\n\r\n") as rogue:
        with pytest.raises(UpstreamIdentityRejected, match="chain-untrusted"):
            await insists(("127.0.0.1", rogue.port), anonymous_context(type(ROOT)().pem), lambda handshake: None)
        assert rogue.received == b""


@pytest.mark.asyncio
async def test_nobody_there_and_nobody_who_answers_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_insist, "ANSWER_TIMEOUT_S", 0.05)
    with service(context_of(tmp_path, ssl.CERT_NONE), b"", Mute) as rogue:
        assert await outcome(rogue) == "probe-timeout"
    assert await outcome(rogue) == "dial-failed"


class House:
    """One that remembers how often it was asked, and says what it is told to."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.probes = 0
        self.says: EdgeError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.insistence = Insistence(asyncio.get_running_loop(), self._probe, self._turned)

    async def _probe(self, where: Where) -> None:
        assert where == HERE
        self.probes += 1
        await self.may_answer.wait()
        if self.says is not None:
            raise self.says

    def _turned(self, where: Where, turn: Turn) -> None:
        assert where == HERE
        self.turns.append(turn)

    async def asked(self) -> str:
        """As the pool does before a request."""
        if self.insistence.is_known(HERE):
            return "known"
        try:
            await self.insistence.require(HERE)
        except EdgeError as exc:
            return exc.rule  # type: ignore[attr-defined,no-any-return]
        return "asked"

    async def turn(self, *, is_used: bool = True) -> None:
        """Of the timer, with everybody due."""
        self.insistence.renew()
        await self.insistence.look_again(lambda where: is_used)


ANYONE = UpstreamIdentityRejected("accepts-anyone")
NOBODY = UpstreamUnreachable("dial-failed")


@pytest.mark.asyncio
async def test_many_who_wait_share_one_probe_and_its_result() -> None:
    house = House()
    house.may_answer.clear()
    waiting = [asyncio.create_task(house.asked()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    house.may_answer.set()
    assert await asyncio.gather(*waiting[1:]) == ["asked"] * 9
    assert (house.probes, await house.asked()) == (1, "known")


@pytest.mark.asyncio
async def test_an_address_that_was_never_reached_is_not_used() -> None:
    house = House()
    for house.says in (NOBODY, UpstreamTimeout("probe-timeout")):
        assert await house.asked() == house.says.rule
    assert (house.turns, house.insistence.is_known(HERE)) == ([], False)


@pytest.mark.asyncio
async def test_one_that_was_good_stays_in_use_while_nobody_answers() -> None:
    house = House()
    await house.asked()
    house.says = NOBODY
    await house.turn()
    assert (house.probes, await house.asked(), house.turns) == (2, "known", [])


@pytest.mark.asyncio
async def test_one_that_was_good_is_out_when_it_answers_and_back_when_it_refuses() -> None:
    house = House()
    await house.asked()
    house.says = ANYONE
    await house.turn()
    assert (house.turns, house.insistence.out) == ([Turn.OUT], {HERE})
    assert await house.asked() == "accepts-anyone"
    house.says = None
    await house.turn()
    assert (house.turns, house.insistence.out, await house.asked()) == ([Turn.OUT, Turn.BACK], set(), "known")


@pytest.mark.asyncio
async def test_who_is_out_is_not_asked_by_every_request() -> None:
    house = House()
    house.says = ANYONE
    assert [await house.asked() for _ in range(5)] == ["accepts-anyone"] * 5
    assert (house.probes, house.turns) == (1, [Turn.OUT])


@pytest.mark.asyncio
async def test_who_is_out_and_gone_is_forgotten_and_so_asked_before_use() -> None:
    house = House()
    house.says = ANYONE
    await house.asked()
    house.says = NOBODY
    await house.turn()
    assert (house.insistence.out, house.insistence.is_known(HERE)) == (set(), False)


@pytest.mark.asyncio
async def test_whom_nobody_uses_is_forgotten_unasked() -> None:
    house = House()
    await house.asked()
    await house.turn(is_used=False)
    assert (house.probes, house.insistence.is_known(HERE)) == (1, False)


@pytest.mark.asyncio
async def test_somebody_else_at_the_address_ends_what_was_known_of_it() -> None:
    house = House()
    await house.asked()
    house.says = UpstreamIdentityRejected("spiffe-id")
    await house.turn()
    assert (house.turns, house.insistence.is_known(HERE)) == ([], False)


@pytest.mark.asyncio
async def test_closing_ends_what_is_under_way() -> None:
    house = House()
    house.may_answer.clear()
    waiting = asyncio.create_task(house.asked())
    await asyncio.sleep(0)
    house.insistence.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.asyncio
async def test_what_a_request_finds_out_at_the_timer_s_turn_counts() -> None:
    house = House()
    house.says = ANYONE
    await house.asked()
    house.insistence.renew()
    house.says = UpstreamIdentityRejected("spiffe-id")
    house.may_answer.clear()
    request = asyncio.create_task(house.asked())
    for _ in range(2):  # until the probe is under way
        await asyncio.sleep(0)
    turn = asyncio.create_task(house.insistence.look_again(lambda where: True))
    house.may_answer.set()
    assert await request == "spiffe-id"
    await turn
    assert (house.insistence.out, house.probes) == (set(), 2)
