"""What happens around a caller: edits, impostors, deaths. The world is as before when a case is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.e2e.cases import CASES, Case, check_refusal
from tests.e2e.load import Load
from tests.e2e.rogue import Rogue, server_context
from tests.e2e.whole_gateway import eventually
from tests.e2e.world import World, route
from tests.wire.speaker import Speaker

BACK_WITHIN_S = 3.0


# -- changes -----------------------------------------------------------------------------------------


def an_edit_is_served_by_every_worker(world: World, speaker: Speaker) -> None:
    before = world.routes.read_text()
    world.routes.write_text(before + route("new", world.orders.port))
    assert world.command("reload").ok
    for _ in range(2 * world.place.workers):
        other = world.speaker(speaker)
        assert world.ask(other, path=b"/new/7").status == 200
        other.close()
    assert world.ask(speaker, path=b"/new/7").status == 200  # also on a connection from before
    world.routes.write_text(before)
    assert world.command("reload").ok
    check_refusal(world, world.ask(speaker, path=b"/new/7"), 404, "no-route")


def a_broken_edit_changes_nothing(world: World, speaker: Speaker) -> None:
    before = world.routes.read_text()
    world.routes.write_text(before + route("new", world.orders.port).replace("timeout_s: 10", 'timeout_s: "10s"'))
    try:
        told = world.command("reload")
        assert (told.ok, len(told.faults)) == (False, 1)
        assert told.faults[0].startswith(f"policies/routes.yaml:{len(before.splitlines()) + 3}:")
        assert world.ask(speaker).status == 200
        assert world.ask(speaker, path=b"/new/7").status == 404
    finally:
        world.routes.write_text(before)
    assert world.command("reload").ok


# -- impostors ---------------------------------------------------------------------------------------

RULES = {"plain": "tls-handshake", "self-made": "chain-untrusted", "other": "spiffe-id"}


def impostors_get_not_one_byte(world: World, speaker: Speaker) -> None:
    for name, rule in RULES.items():
        rogue = world.around.rogues[name]
        for method, body in (("GET", None), ("POST", b"a secret body")):
            before = rogue.connections
            answer = world.ask(speaker, method, b"/%b/7" % name.encode(), body=body)
            check_refusal(world, answer, 502, "upstream-identity", rule)
            eventually(lambda rogue=rogue, before=before: rogue.connections > before, 15)  # type: ignore[misc]
        assert rogue.received == b"" or name == "plain"
    greeting = world.around.rogues["plain"].received  # the begin of a handshake, which is for anybody to see
    assert b"alice" not in greeting
    assert b"secret" not in greeting
    assert b"HTTP/1.1" not in greeting
    assert world.orders.seen == b""


def a_successor_at_the_port_of_the_service_gets_not_one_byte(world: World, speaker: Speaker) -> None:
    assert world.ask(speaker).status == 200  # a connection that waits
    world.orders.stop()
    try:
        check_refusal(world, world.ask(speaker, "POST", body=b"x"), 502, "upstream-unreachable")
        context = server_context(world.gateway.directory, world.around.other_identity)
        rogue = Rogue(world.orders.port, context)
        for _ in range(3):
            check_refusal(world, world.ask(speaker), 502, "upstream-identity", "spiffe-id")
        rogue.close()
        assert rogue.received == b""
    finally:
        world.orders.start()
    eventually(lambda: world.ask(speaker).status == 200, BACK_WITHIN_S)


# -- deaths ------------------------------------------------------------------------------------------


def killed(world: World, speaker: Speaker, name: str, kill: Callable[[], None], wanted: dict[int, bytes]) -> None:
    """Under load: it is back, all is as before, and meanwhile callers heard nothing but 200 and what is wanted."""
    load = Load(world.gateway, 3, speaks=type(speaker), fields=world.credential(), pause_s=0.002)
    eventually(lambda: load.count(200) > 20, 15)
    before = world.gateway.pids(name)
    kill()
    if before:
        eventually(lambda: len(world.gateway.pids(name) - before) == 1, BACK_WITHIN_S)
        eventually(lambda: len(world.gateway.pids(name)) == len(before), BACK_WITHIN_S)
    served = load.count(200)
    eventually(lambda: load.count(200) > served + 20, BACK_WITHIN_S)
    world.finished(load)
    assert {call.status for call in load.calls} <= {200, *wanted}
    assert all(wanted[call.status] in call.body for call in load.calls if call.status in wanted)


def a_killed_worker_loses_only_what_it_was_answering(world: World, speaker: Speaker) -> None:
    lost = world.lost
    victim = max(world.gateway.pids("edge-worker"))
    killed(world, speaker, "edge-worker", lambda: os.kill(victim, signal.SIGKILL), {})
    assert world.lost - lost <= 3  # the callers it had, once each


def nothing_is_served_unlogged_when_the_notary_is_killed(world: World, speaker: Speaker) -> None:
    victim = max(world.gateway.pids("edge-notary"))
    lost = world.lost
    killed(world, speaker, "edge-notary", lambda: os.kill(victim, signal.SIGKILL), {503: b"not-recordable"})
    assert world.lost == lost


def without_the_store_a_closed_limit_refuses_and_the_rest_is_served(world: World, speaker: Speaker) -> None:
    subject = f"storeless-{len(world.told)}"
    if world.store is None:
        victim = max(world.gateway.pids("valkey-server"))
        killed(world, speaker, "valkey-server", lambda: os.kill(victim, signal.SIGKILL), {})
    else:
        killed(world, speaker, "valkey-server", world.store.kill, {})
        answer = world.ask(speaker, path=b"/counted/7", token=world.token(subject))
        check_refusal(world, answer, 503, "store-unavailable")
        assert b"/counted/" not in world.orders.seen
        assert world.ask(speaker).status == 200
        world.store.start()

    def is_counted_again() -> bool:
        """By every worker, as far as connections reach them all."""
        speakers = [world.speaker(speaker) for _ in range(4 * world.place.workers)]
        tokens = [world.token(f"{subject}-{len(world.told)}-{number}") for number in range(len(speakers))]
        asked = [world.ask(one, path=b"/counted/7", token=token) for one, token in zip(speakers, tokens, strict=True)]
        for one in speakers:
            one.close()
        return {answer.status for answer in asked} == {200}

    eventually(is_counted_again, BACK_WITHIN_S)


TROUBLE: dict[str, Case] = {
    "edit": an_edit_is_served_by_every_worker,
    "broken-edit": a_broken_edit_changes_nothing,
    "impostors": impostors_get_not_one_byte,
    "successor": a_successor_at_the_port_of_the_service_gets_not_one_byte,
    "worker-killed": a_killed_worker_loses_only_what_it_was_answering,
    "notary-killed": nothing_is_served_unlogged_when_the_notary_is_killed,
    "store-killed": without_the_store_a_closed_limit_refuses_and_the_rest_is_served,
}
ALL = CASES | TROUBLE
"""What the matrix walks."""
