"""What workers say of instances, and what is made of it: the worst, the sum, and never more than fits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cli.status import lines
from edge.forward.endpoint import Endpoint
from edge.forward.health import EjectionSettings
from edge.observe import MAX_SHEET_BYTES, Gauge, Observer, sheet
from edge.serve.board import Board
from edge.serve.instances import MAX_LISTED, encode, instances, services
from tests.edge.serve.test_status import board_of, status_of


def endpoint(port: int, service: str = "orders", *, in_flight: int = 0, state: str = "healthy") -> Endpoint:
    made = Endpoint(service, f"spiffe://mesh.internal/svc/{service}", ("10.0.0.1", port))
    made.is_member, made.in_flight = state != "gone", in_flight
    if state == "ejected":
        made.health.eject(100.0, EjectionSettings(first_s=10))
    made.health.is_failing = state == "unhealthy"
    made.is_draining = state == "draining"
    if state == "starting":
        made.load_weight = 1
    assert made.state == state
    return made


def shown(*workers: list[Endpoint], now_s: float = 105.0) -> Board:
    board, observers = board_of(len(workers))
    for observer, endpoints in zip(observers, workers, strict=True):
        observer.show_sheet(encode(endpoints, now_s))
    return board


def test_one_worker_says_how_each_is() -> None:
    states = ("draining", "ejected", "gone", "healthy", "starting", "unhealthy")
    board = shown([endpoint(port, in_flight=port, state=state) for port, state in enumerate(states)])
    found = instances(board)
    assert [(each.name, each.address, each.state, each.in_flight) for each in found] == [
        (f"10.0.0.1:{port}", f"10.0.0.1:{port}", state, port) for port, state in enumerate(states)
    ]
    out = found[1]
    assert abs(out.since - (time.time() - 5)) < 60
    assert round(out.until - out.since, 3) == 10
    assert (found[0].since, found[0].until) == (0, 0)
    assert services(board)["orders"].instances == dict.fromkeys(states, 1)
    assert services(board)["orders"].in_flight == 15


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("healthy", "ejected", "ejected"),
        ("ejected", "unhealthy", "unhealthy"),
        ("starting", "healthy", "starting"),
        ("gone", "healthy", "healthy"),
        ("draining", "unhealthy", "draining"),
    ],
)
def test_of_two_workers_the_worse_word_counts_and_what_is_under_way_is_added(
    one: str, other: str, expected: str
) -> None:
    for words in ((one, other), (other, one)):
        board = shown(*([endpoint(1, in_flight=2, state=word)] for word in words))
        (found,) = instances(board)
        assert (found.state, found.in_flight, services(board)["orders"].in_flight) == (expected, 4, 4)


def test_counts_are_those_of_the_worker_that_sees_most() -> None:
    board = shown([endpoint(1), endpoint(2, state="ejected")], [endpoint(1), endpoint(2)])
    counts = services(board)["orders"].instances
    assert (counts["healthy"], counts["ejected"]) == (2, 1)


def test_a_worker_that_said_nothing_or_is_gone_adds_nothing() -> None:
    board = shown([endpoint(1)], [endpoint(2)])
    board.free(2)
    assert [each.name for each in instances(board)] == ["10.0.0.1:1"]
    silent, _ = board_of(1)
    assert (instances(silent), services(silent)) == ((), {})


def test_what_is_said_later_replaces_what_was_said_before() -> None:
    board, [observer] = board_of(1)
    for count in (3, 0, 2):
        observer.show_sheet(encode([endpoint(port) for port in range(count)], 0))
        assert len(instances(board)) == count


def test_a_successor_in_the_same_row_does_not_repeat_its_predecessor() -> None:
    board, [observer] = board_of(1)
    observer.show_sheet(encode([endpoint(1)], 0))
    board.free(1)
    row = board.take(2, 0)
    board.own(2, 4242)
    Observer(row.memory).show(Gauge.UPDATED_NS, 1)
    assert instances(board) == ()


def test_a_list_is_bounded_and_begins_with_what_is_remarkable() -> None:
    many = [endpoint(port) for port in range(3000)]
    text = encode([endpoint(4000, state="ejected"), *many], 105)
    board, [observer] = board_of(1)
    observer.show_sheet(text)
    assert (len(text) < MAX_SHEET_BYTES, len(instances(board))) == (True, MAX_LISTED)
    assert "ejected" in {each.state for each in instances(board)}
    assert services(board)["orders"].instances["healthy"] == 3000


def test_names_as_long_as_they_may_be_are_cut_to_fit() -> None:
    endpoints = [endpoint(port, f"{port:063}") for port in range(6000)]
    assert len(encode(endpoints, 0)) <= MAX_SHEET_BYTES


@given(st.binary(max_size=200))
def test_a_row_full_of_rubbish_is_no_instance(rubbish: bytes) -> None:
    board, [observer] = board_of(1)
    observer.show_sheet(rubbish)
    assert instances(board) == ()
    assert services(board) == {}


def test_a_length_that_lies_reads_no_further_than_the_sheet() -> None:
    board, [observer] = board_of(1)
    observer.show_sheet(b"[]")
    memory, length = board.rows[0].memory, (2).to_bytes(8, "little")
    at = bytes(memory).index(length + b"[]")
    memory[at : at + 8] = (1 << 60).to_bytes(8, "little")
    assert len(sheet(memory)) <= MAX_SHEET_BYTES
    assert instances(board) == ()


def test_people_see_the_counts_and_who_is_left_alone(tmp_path: Path) -> None:
    board = shown([endpoint(1, state="ejected", in_flight=3), endpoint(2)])
    text = "\n".join(lines(status_of(board, tmp_path)))
    assert "service  healthy  starting  ejected  unhealthy  draining  gone  under way" in text
    assert "orders   1        -         1        -          -         -     3" in text
    assert "orders   10.0.0.1:1  ejected  3" in text
    assert "10.0.0.1:2" not in text
