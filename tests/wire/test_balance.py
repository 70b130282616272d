"""Several instances of a service behind a whole gateway: one fails, one goes, one is slow, one is full. The same over both
protocols: whoever asks, the instance is the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.serve.control_socket import ask as ask_control
from edge.serve.status import Status
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import eventually, issue
from tests.wire.rig import Answer
from tests.wire.speaker import SPEAKERS, Http1Speaker, Speaker
from tests.wire.websocket_rig import CLOSE, SocketRig, close, frame, handshake, sent

ONE_AT_A_TIME = "max_in_flight: {instance: 1}"
SERVICES = {
    "failing": (3, "ejection: {failures: 2, counts_5xx: true, first_s: 600, longest_s: 600}"),
    "going": (2, "ejection: {failures: 1, first_s: 0.2, longest_s: 0.2}, slow_start_s: 0"),
    "slow": (2, "ejection: {failures: 1, first_s: 600, longest_s: 600}"),
    "full": (1, ONE_AT_A_TIME),
    "checked": (
        2,
        "health: {path: /up, every_s: 0.5, timeout_s: 20, healthy_after: 1, unhealthy_after: 1}, slow_start_s: 0",
    ),
    "weighed": (2, "balance: least_requests"),
}
"""Name → how many instances, and what services.yaml says."""
ROUTE = """\
  - name: {name}
    match: {{path: /{name}/**, methods: [GET, POST]}}
    upstream: {{service: {name}, endpoints: [{endpoints}], weights: {weights}, timeout_s: {timeout_s}}}
    public: {{reason: a test without tokens}}
"""
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"


class Fleet(SocketRig):
    """Services of several instances each; `orders` speaks WebSocket."""

    def prepare(self, directory: Path) -> None:
        super().prepare(directory)
        policies = directory / "policies"
        entries = [f"  orders: {{may_serve: [/orders/**], {ONE_AT_A_TIME}}}\n"]
        entries += [f"  {name}: {{may_serve: [/{name}/**], {more}}}\n" for name, (_, more) in SERVICES.items()]
        (policies / "services.yaml").write_text("services:\n" + "".join(entries))
        resources = " || ".join(f'resource in Edge::Service::"{name}"' for name in ("orders", *SERVICES))
        (policies / "anybody.cedar").write_text(
            f'@id("anybody")\npermit (principal is Edge::Anonymous, action, resource) when {{ {resources} }};\n'
        )
        self.instances: dict[str, list[Upstream]] = {}
        routes = [ROUTE.format(name="orders", endpoints=f'"127.0.0.1:{self.sockets.port}"', weights="{}", timeout_s=20)]
        issue(directory, *SERVICES)
        for name, (count, _) in SERVICES.items():
            made = self.instances[name] = [Upstream(directory / name) for _ in range(count)]
            places = [f"127.0.0.1:{each.port}" for each in made]
            routes.append(
                ROUTE.format(
                    name=name,
                    endpoints=", ".join(f'"{place}"' for place in places),
                    weights=f'{{"{places[-1]}": 3}}' if name == "weighed" else "{}",
                    timeout_s=0.5 if name == "slow" else 20,
                )
            )
        (policies / "routes.yaml").write_text("routes:\n" + "".join(routes))

    def status(self) -> Status:
        found = ask_control(self.gateway.directory / "state" / "run", "status", 30).status
        assert found is not None
        return found

    def states(self, service: str) -> Counter[str]:
        return Counter(each.state for each in self.status().instances if each.service == service)

    def close(self) -> None:
        super().close()
        for made in self.instances.values():
            for each in made:
                each.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("balance") / "edge")
    yield fleet
    fleet.close()


@pytest.fixture
def speakers(fleet: Fleet) -> Iterator[list[Speaker]]:
    speakers = [make(fleet.gateway) for make in SPEAKERS.values()]
    yield speakers
    for speaker in speakers:
        speaker.close()


def asked(upstream: Upstream) -> int:
    return upstream.seen.count(b"GET /")


def in_turn(speakers: list[Speaker], path: bytes, count: int) -> list[Answer]:
    """So many requests, by turns over each protocol."""
    return [speakers[at % len(speakers)].ask("GET", path) for at in range(count)]


def until(speakers: list[Speaker], path: bytes, holds: Callable[[], bool], within_s: float = 20) -> list[int]:
    """Requests over each protocol by turns until it holds; → their statuses."""
    end, statuses = time.monotonic() + within_s, []
    while not holds():
        assert time.monotonic() < end, "it never held"
        statuses += [answer.status for answer in in_turn(speakers, path, len(speakers))]
    return statuses


def test_an_instance_that_answers_5xx_is_left_alone(fleet: Fleet, speakers: list[Speaker]) -> None:
    bad, *good = fleet.instances["failing"]
    bad.by_target[b"/failing/7"] = BROKEN
    statuses = Counter(answer.status for answer in in_turn(speakers, b"/failing/7", 40))
    assert statuses == {500: 2, 200: 38}
    assert asked(bad) == 2
    assert min(map(asked, good)) >= 18
    eventually(lambda: fleet.states("failing") == {"ejected": 1, "healthy": 2}, 20)
    (out,) = [each for each in fleet.status().instances if each.service == "failing" and each.state == "ejected"]
    assert out.address == f"127.0.0.1:{bad.port}"
    assert 599 <= out.until - out.since <= 601


def test_an_instance_that_goes_costs_no_request_and_is_used_when_it_is_back(
    fleet: Fleet, speakers: list[Speaker]
) -> None:
    gone, stays = fleet.instances["going"]
    assert {answer.status for answer in in_turn(speakers, b"/going/7", 4)} == {200}
    gone.stop()
    before = asked(stays)
    assert {answer.status for answer in in_turn(speakers, b"/going/7", 20)} == {200}
    assert asked(stays) - before == 20
    gone.clear()
    gone.start()
    assert set(until(speakers, b"/going/7", lambda: asked(gone) > 0)) == {200}


def test_an_instance_that_is_too_slow_is_left_alone(fleet: Fleet, speakers: list[Speaker]) -> None:
    slow, _ = fleet.instances["slow"]
    slow.let.clear()
    first = in_turn(speakers, b"/slow/7", 2)
    assert sorted(answer.status for answer in first) == [200, 504]
    assert [answer.reason for answer in first if answer.status == 504] == ["upstream-timeout"]
    assert {answer.status for answer in in_turn(speakers, b"/slow/7", 20)} == {200}
    assert asked(slow) == 1


def test_more_than_may_be_under_way_is_refused_and_recorded(fleet: Fleet, speakers: list[Speaker]) -> None:
    (upstream,), path = fleet.instances["full"], b"/full/7"
    upstream.let.clear()
    before = asked(upstream)
    holder = Http1Speaker(fleet.gateway)
    holder.begin("GET", path)
    eventually(lambda: asked(upstream) == before + 1, 20)
    for speaker in speakers:
        refused = speaker.ask("GET", path)
        assert (refused.status, refused.reason, refused.fields["retry-after"]) == (503, "shedding", "1")
        leaf = fleet.record(refused.fields["x-request-id"])
        said = (leaf["event.outcome"], leaf["event.reason"], leaf["rule.id"])
        assert said == ("failure", "shedding", "instance-in-flight")
    assert asked(upstream) == before + 1
    eventually(lambda: fleet.status().services["full"].in_flight == 1, 20)
    upstream.let.set()
    assert holder.answer().status == 200
    holder.close()
    assert {answer.status for answer in in_turn(speakers, path, 4)} == {200}


def test_who_leaves_makes_room(fleet: Fleet, speakers: list[Speaker]) -> None:
    (upstream,) = fleet.instances["full"]
    for speaker in speakers:
        upstream.let.clear()
        before = asked(upstream)
        speaker.begin("GET", b"/full/7")
        eventually(lambda before=before: asked(upstream) > before, 20)  # type: ignore[misc]
        speaker.leave()
        assert upstream.given_up.acquire(timeout=20)  # the gateway hung up
        upstream.let.set()
        eventually(lambda: speakers[0].ask("GET", b"/full/8").status == 200, 20)


@pytest.mark.parametrize("ending", ["the client leaves", "the service leaves", "both say so"])
@pytest.mark.parametrize("over", ["h1", "h2"])
def test_an_open_websocket_takes_a_place_until_it_ends(fleet: Fleet, over: str, ending: str) -> None:
    fleet.over = over
    pair = fleet.open()
    for fleet.over in ("h1", "h2"):
        assert fleet.ask(handshake())[1].reason == "shedding"
    if ending == "the client leaves":
        pair.client.end()
    elif ending == "the service leaves":
        pair.upstream.end()
    else:
        pair.client.send(sent(CLOSE, close(1000)))
        pair.upstream.send(frame(CLOSE, close(1000)))
    eventually(lambda: fleet.ask(handshake())[1].status == fleet.switched, 20)
    fleet.sockets.ends.get(
        timeout=20
    )  # of the one that was let in: told after its 101, it may come behind the clearing
    fleet.clear()


def test_who_fails_checks_gets_nothing_while_another_passes(fleet: Fleet, speakers: list[Speaker]) -> None:
    bad, good = fleet.instances["checked"]
    bad.by_target[b"/up"] = BROKEN
    eventually(lambda: fleet.states("checked") == {"unhealthy": 1, "healthy": 1}, 20)
    before = bad.seen.count(b"GET /checked/7")
    assert {answer.status for answer in in_turn(speakers, b"/checked/7", 10)} == {200}
    assert bad.seen.count(b"GET /checked/7") == before
    assert good.seen.count(b"GET /checked/7") >= 10
    del bad.by_target[b"/up"]
    until(speakers, b"/checked/7", lambda: bad.seen.count(b"GET /checked/7") > before)
    assert not [leaf for leaf in fleet.leaves() if leaf.get("url.path") == "/up"]  # a check is no request


def test_weights_of_the_file_count(fleet: Fleet, speakers: list[Speaker]) -> None:
    in_turn(speakers, b"/weighed/7", 40)
    assert [asked(each) for each in fleet.instances["weighed"]] == [10, 30]
