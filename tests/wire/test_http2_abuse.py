"""Who abuses HTTP/2 is cut with the right code, costs a bounded amount, and nobody else notices (attacks C4)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from edge.accept.shed import ShedSettings
from tests.e2e.whole_gateway import eventually
from tests.wire.raw_h2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    PING,
    POST,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    RawH2,
    block,
    frame,
    headers,
    setting,
    u32,
)
from tests.wire.rig import Rig
from tests.wire.test_deadlines import SHORT, Near, near, play
from tests.wire.tunnel_echo import Echo

SETTINGS_TIMEOUT, CANCEL, CALM = 4, 8, 11
BIG = (*GET[:3], (b":path", b"/orders/big"))
OPEN = END_HEADERS


def flood(rig: Rig, said: Callable[[int], bytes], count: int) -> RawH2:
    """Say it again and again, with the number of the next stream, until the gateway has enough of it."""
    client = RawH2(rig.gateway)
    try:
        for at in range(count):
            client.send(said(2 * at + 1))
    except OSError:
        pass
    client.until_closed()
    client.close()
    return client


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda at: frame(PING, payload=bytes(8)) * 50,
    "answers to PING": lambda at: frame(PING, ACK, payload=bytes(8)) * 50,
    "SETTINGS": lambda at: setting((3, 1)) * 50,
    "windows by one": lambda at: frame(WINDOW_UPDATE, payload=u32(1)) * 50,
    "PRIORITY": lambda at: frame(PRIORITY, 0, 1, u32(3) + b"\x10") * 50,
    "unknown frames": lambda at: frame(0xEE, 0, 0, b"?") * 50,
    "empty DATA": lambda at: (headers(1, POST, OPEN) if at == 1 else b"") + frame(DATA, 0, 1) * 50,
    "empty continuations": lambda at: headers(at, flags=END_STREAM) + frame(CONTINUATION, 0, at) * 10
    + frame(CONTINUATION, END_HEADERS, at) + frame(RST_STREAM, 0, at, u32(8)),
    "resets, CVE-2023-44487": lambda at: headers(at) + frame(RST_STREAM, 0, at, u32(8)),
    "made to reset by a window, CVE-2025-8671": lambda at: headers(at, POST, OPEN) + frame(WINDOW_UPDATE, 0, at, u32(0)),
    "made to reset by a large window": lambda at: headers(at, POST, OPEN) + frame(WINDOW_UPDATE, 0, at, u32(2**31 - 1)),
    "made to reset by DATA": lambda at: headers(at) + frame(DATA, END_STREAM, at, b"x"),
    "made to reset by a second head": lambda at: headers(at) + headers(at),
    "made to reset by a priority": lambda at: headers(at, POST, OPEN) + frame(PRIORITY, 0, at, b"?"),
    "made to reset by malformed heads": lambda at: headers(at, (*GET, (b"connection", b"x"))),
    "made to reset by lengths": lambda at: headers(at, (*POST, (b"content-length", b"1"))),
    "made to refuse": lambda at: (setting((4, 0)) if at == 1 else b"") + headers(at, (*GET[:3], (b":path", b"/nowhere"))),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_with_enhance_your_calm_C4(rig: Rig, kind: str) -> None:
    heard = flood(rig, FLOODS[kind], 1500).heard
    assert [code for _, code in heard.goaways] in ([CALM], [])  # none, when its own bytes pushed the words away
    with RawH2(rig.gateway) as other:
        assert other.send(headers(1)).until_over(1).statuses == {1: 200}


def test_what_is_reset_in_the_same_breath_never_reaches_an_upstream_CVE_2023_44487(rig: Rig) -> None:
    with RawH2(rig.gateway) as client:
        client.send(b"".join(headers(at) + frame(RST_STREAM, 0, at, u32(8)) for at in range(1, 99, 2))).fence()
        client.send(headers(99)).until_over(99)
        assert client.heard.statuses == {99: 200}
    assert rig.upstream.seen.count(b"GET /orders/7 ") == 1


def test_resets_while_upstreams_are_silent_leave_no_connection_behind(rig: Rig) -> None:
    rig.upstream.by_target[b"/quick/silent"] = b""
    silent = (*GET[:3], (b":path", b"/quick/silent"))
    with RawH2(rig.gateway) as client:
        client.send(b"".join(headers(at, silent) for at in range(1, 41, 2))).fence()
        eventually(lambda: rig.upstream.seen.count(b"GET /quick/silent ") == 20, 15)
        client.send(b"".join(frame(RST_STREAM, 0, at, u32(8)) for at in range(1, 41, 2))).fence()
        assert client.heard.goaways == []
    eventually(lambda: rig.upstream.open_connections <= 2, 15)


def test_windows_that_stay_shut_hold_a_bounded_part_of_the_answers(rig: Rig) -> None:
    size = 8 << 20
    rig.upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)
    big = (*GET[:3], (b":path", b"/orders/big"))
    before = rig.resident_bytes()
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 0)) + b"".join(headers(at, big) for at in range(1, 181, 2))).fence()
        eventually(lambda: len(client.fence().statuses) >= 4, 15)
        time.sleep(0.5)
        assert rig.resident_bytes() - before < 64 << 20
        client.send(headers(181)).fence()
        assert 181 not in client.heard.statuses  # nothing is begun for who takes nothing
        client.send(b"".join(frame(RST_STREAM, 0, at, u32(8)) for at in range(1, 181, 2))).fence()
        client.send(frame(WINDOW_UPDATE, 0, 181, u32(100))).until_over(181)
        assert client.heard.bodies[181] == b"ok"


def test_pings_that_are_answered_and_not_read_are_not_held_for_ever(rig: Rig) -> None:
    before = rig.resident_bytes()
    with RawH2(rig.gateway) as client:
        try:
            for _ in range(3000):
                client.send(frame(PING, payload=bytes(8)) * 200)
        except OSError:
            pass
        assert rig.resident_bytes() - before < 16 << 20


def test_many_small_frames_are_one_write_upstream(rig: Rig) -> None:
    body = frame(DATA, 0, 1, b"x") * 20_000
    with RawH2(rig.gateway) as client:
        began = time.monotonic()
        client.send(headers(1, POST, OPEN) + body + frame(DATA, END_STREAM, 1)).until_over(1)
        assert client.heard.statuses == {1: 200}
        assert time.monotonic() - began < 10
    assert len(rig.upstream.seen) < 60_000


def test_an_answer_goes_out_as_the_windows_allow_and_no_faster(rig: Rig) -> None:
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + bytes(range(250)) * 4]
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 10)) + headers(1)).fence()
        eventually(lambda: len(client.fence().bodies.get(1, b"")) == 10, 15)
        client.send(setting((4, 0)) + frame(WINDOW_UPDATE, 0, 1, u32(15))).fence()
        assert len(client.heard.bodies[1]) == 15  # the setting took ten away, which were used up
        client.send(frame(WINDOW_UPDATE, 0, 1, u32(2000))).until_over(1)
        assert client.heard.bodies[1] == bytes(range(250)) * 4


def test_streams_share_what_a_connection_may_send(rig: Rig) -> None:
    size = 200_000
    rig.upstream.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)] * 3
    with RawH2(rig.gateway) as client:
        client.send(setting((4, 1 << 20)) + headers(1) + headers(3) + headers(5))
        eventually(lambda: sum(map(len, client.fence().bodies.values())) == 65_535, 15)
        eventually(lambda: len(client.fence().statuses) == 3, 15)
        for _ in range(8):
            client.send(frame(WINDOW_UPDATE, payload=u32(49_152))).fence()
        assert min(len(client.heard.bodies.get(at, b"")) for at in (1, 3, 5)) >= 80_000
        client.send(frame(WINDOW_UPDATE, payload=u32(1 << 20)))
        for at in (1, 3, 5):
            assert len(client.until_over(at).bodies[at]) == size


def test_no_frames_at_all_make_the_worker_complain(rig: Rig) -> None:
    """Talks that are half sound, by chance, so that they get far: every state meets every frame."""
    chance = random.Random(9113)
    payloads = (b"", b"x", bytes(4), u32(1), u32(2**31 - 1), bytes(8), block(GET), block(POST), block([(b"x", b"1")]))
    sound = (
        lambda at: headers(at),
        lambda at: headers(at, POST, OPEN),
        lambda at: headers(at, (*POST, (b"content-length", b"3")), OPEN),
        lambda at: headers(at, (*GET[:3], (b":path", b"/nowhere"))),
        lambda at: frame(DATA, chance.choice((0, 1)), at, b"x" * chance.choice((0, 1, 3, 9000))),
        lambda at: frame(WINDOW_UPDATE, 0, chance.choice((0, at)), u32(chance.choice((1, 70_000)))),
        lambda at: frame(RST_STREAM, 0, at, u32(8)),
        lambda at: setting((4, chance.choice((0, 1, 65_535, 1 << 20)))),
        lambda at: headers(at, [(b"x-a", b"1")]),
    )
    for _ in range(120):
        talk = []
        for _ in range(chance.randrange(1, 25)):
            at = chance.choice((1, 1, 3, 5, 7, 9))
            if chance.random() < 0.9:
                talk.append(chance.choice(sound)(at))
            else:
                talk.append(
                    frame(chance.randrange(12), chance.choice((0, 1, 4, 5, 8, 0x25, 255)), at, chance.choice(payloads))
                )
        with RawH2(rig.gateway) as client, suppress(OSError):
            client.send(b"".join(talk)).fence()
    with RawH2(rig.gateway) as client:
        assert client.send(headers(1)).until_over(1).statuses == {1: 200}
    complaints = [
        line for line in rig.gateway.lines if "internal" in line or "unexpected" in line or "Traceback" in line
    ]
    assert complaints == []


# -- ends --------------------------------------------------------------------------------------------


PATIENT = replace(SHORT, handshake_s=10, linger_s=2)
"""With who is slow to begin and to end: many do so at once, in this process."""


def stops_in_a_head(there: Near) -> None:
    with RawH2(there) as client:
        assert client.send(headers(1, flags=END_STREAM)).until_closed().goaways == [(0, CALM)]


def dribbles_continuations(there: Near) -> None:
    with RawH2(there) as client:
        client.send(headers(1, flags=END_STREAM))
        client.tls.settimeout(0.1)
        for _ in range(14):
            client.send(frame(CONTINUATION, 0, 1, b""))
            try:
                if not client.hear():
                    break
            except TimeoutError:
                continue
        client.tls.settimeout(9)
        assert client.until_closed().goaways == [(0, CALM)]


def stops_in_a_frame(there: Near) -> None:
    with RawH2(there) as client:
        assert client.send(frame(HEADERS, 0x5, 1, b"", length=100)).until_closed().goaways == [(0, CALM)]


def says_half_a_preface(there: Near) -> None:
    with RawH2(there, begins=False) as client:
        assert client.send(b"PRI * HTTP/2.0\r\n").until_closed().goaways == [(0, CALM)]


def only_pings(there: Near) -> None:
    with RawH2(there) as client:
        client.tls.settimeout(0.1)
        end = time.monotonic() + 9
        while time.monotonic() < end and not client.heard.goaways:
            client.send(frame(PING, payload=bytes(8)))
            with suppress(TimeoutError):
                while client.hear():
                    pass
        assert client.heard.goaways == [(0, 0)]  # being alive is no progress


def never_acknowledges(there: Near) -> None:
    with RawH2(there, acknowledges=False) as client:
        assert client.send(headers(1)).until_over(1).statuses == {1: 200}
        assert client.until_closed().goaways == [(1, SETTINGS_TIMEOUT)]


def stops_in_its_body(there: Near) -> None:
    with RawH2(there) as client:
        client.send(headers(1, POST, OPEN) + frame(DATA, 0, 1, b"begin")).until_over(1)
        assert client.heard.resets == {1: CANCEL}
        assert client.send(headers(3)).until_over(3).statuses == {3: 200}  # the connection goes on


def stops_in_a_frame_of_its_body(there: Near) -> None:
    with RawH2(there) as client:
        client.send(headers(1, POST, OPEN) + frame(DATA, 0, 1, b"begin", length=100)).until_over(1)
        assert client.heard.resets == {1: CANCEL}
        assert client.until_closed().goaways == [(1, CALM)]


def takes_nothing_of_its_window(there: Near) -> None:
    with RawH2(there) as client:
        client.send(setting((4, 0)) + headers(1)).until_over(1)
        assert client.heard.resets == {1: CANCEL}
        assert client.send(setting((4, 9)) + headers(3)).until_over(3).statuses == {1: 200, 3: 200}


def takes_nothing_of_the_connection_s_window(there: Near) -> None:
    with RawH2(there) as client:
        client.send(setting((4, 1 << 20)) + headers(1, BIG)).until_over(1)
        assert (client.heard.resets, len(client.heard.bodies[1])) == ({1: CANCEL}, 65_535)


def is_served_beside_them(there: Near) -> None:
    with RawH2(there) as client:
        end = time.monotonic() + 1
        for stream in range(1, 2000, 2):
            assert client.send(headers(stream)).until_over(stream).statuses[stream] == 200
            if time.monotonic() > end:
                break


ENDS = (
    stops_in_a_head, dribbles_continuations, stops_in_a_frame, says_half_a_preface, only_pings, never_acknowledges,
    stops_in_its_body, stops_in_a_frame_of_its_body, takes_nothing_of_its_window, takes_nothing_of_the_connection_s_window,
    is_served_beside_them,
)  # fmt: skip


def test_what_never_becomes_whole_is_cut_C4(running: Rig, tmp_path: Path) -> None:
    running.upstream.by_target[b"/orders/big"] = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + bytes(200_000)

    async def all_of_them() -> list[float | BaseException]:
        async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings(), deadlines=PATIENT) as there:
            with ThreadPoolExecutor(6) as pool:
                found = await asyncio.gather(*(play(there, attack, pool) for attack in ENDS), return_exceptions=True)
            assert await there.front.emptied(2), "connections are left"
        return found

    for attack, found in zip(ENDS, uvloop.run(all_of_them()), strict=True):
        if isinstance(found, BaseException):
            raise AssertionError(attack.__name__) from found
        assert 0.3 < found < 15, (attack.__name__, found)


def test_a_worker_that_retires_tells_its_clients_and_serves_what_they_had_sent(running: Rig, tmp_path: Path) -> None:
    async def scene() -> None:
        async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings()) as there:
            loop = asyncio.get_running_loop()

            def first() -> RawH2:
                client = RawH2(there)
                assert client.send(headers(1)).until_over(1).statuses == {1: 200}
                return client

            with ThreadPoolExecutor(1) as pool:
                client = await loop.run_in_executor(pool, first)
                there.front.begin_retire()
                heard = await loop.run_in_executor(pool, client.until_closed)
                assert heard.goaways == [(2**31 - 1, 0), (1, 0)]
                client.close()
            assert await there.front.drained(SHORT.linger_s + 1)

    uvloop.run(scene())


# -- tunnels -----------------------------------------------------------------------------------------


def test_an_extended_connect_is_given_to_whoever_takes_tunnels(running: Rig, tmp_path: Path) -> None:
    seen: list[str] = []
    connect = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:])

    def talk(there: Near) -> None:
        with RawH2(there) as client:
            assert client.fence().settings[8] == 1
            client.send(headers(1, connect, OPEN) + headers(3, connect, OPEN) + frame(DATA, 0, 1, b"hello"))
            client.send(headers(5, connect, OPEN) + frame(RST_STREAM, 0, 5, u32(8)))  # nobody hears of this one
            while client.heard.bodies.get(1) != b"HELLO":
                assert client.hear()
            client.send(frame(DATA, END_STREAM, 1, b" you") + frame(RST_STREAM, 0, 3, u32(8))).until_over(1)
            assert (client.heard.bodies[1], client.heard.statuses) == (b"HELLO YOU", {1: 200, 3: 200})
            client.fence()

    async def scene() -> None:
        async with near(running.gateway.directory, tmp_path / "w.ring", ShedSettings()) as there:
            there.front.take_tunnel = lambda stream, head: seen.append(type(Echo(stream, head, seen)).__name__)
            with ThreadPoolExecutor(1) as pool:
                await play(there, talk, pool)

    uvloop.run(scene())
    assert seen[:4] == ["websocket", "Echo", "websocket", "Echo"]
    assert sorted(seen[4:]) == ["end", "gone"]
