"""The shared memory of the numbers: who gets which row, and what is left in it."""

from __future__ import annotations

import os

import pytest

from edge.observe import Gauge, Observer, merge
from edge.serve.board import Board, Fact


def test_row_is_nobodys_until_its_process_has_said_how_it_is() -> None:
    board = Board(2)
    row = board.take(1, 0)
    assert board.live() == []
    board.own(1, 77)
    assert board.live() == []
    Observer(row.memory).show(Gauge.UPDATED_NS, 5)
    assert [(row.worker, row.pid) for row in board.live()] == [(0, 77)]
    board.free(1)
    assert board.live() == []


def test_replacement_counts_on_in_the_row_of_the_dead() -> None:
    board = Board(1)
    for number in (1, 2):
        row = board.take(number, 0)
        Observer(row.memory).request(None, "GET", 404, "no-route", 1, 0, 0)
        board.free(number)
    [series] = merge(row.memory for row in board.rows).values()
    assert series.requests == 2


def test_successor_and_replacement_write_rows_of_their_own() -> None:
    board = Board(2)
    taken = [board.take(number, 1) for number in range(5)]
    assert {row.worker for row in taken} == {1}
    assert len({id(row) for row in taken}) == 5
    with pytest.raises(StopIteration):
        board.take(5, 1)


def test_gauges_of_the_one_before_are_forgotten_and_its_counts_are_not() -> None:
    board = Board(1)
    observer = Observer(board.take(1, 0).memory)
    observer.request(None, "GET", 404, "no-route", 1, 0, 0)
    observer.show(Gauge.CONNECTIONS, 9)
    observer.show(Gauge.RETIRING, 1)
    board.free(1)
    row = board.take(2, 0)
    assert not row.is_retiring
    assert len(merge([row.memory])) == 1


def test_what_a_child_writes_is_seen_by_the_parent() -> None:
    board = Board(1)
    row = board.take(1, 0)
    pid = os.fork()
    if pid == 0:
        Observer(row.memory).request(None, "GET", 200, None, 1, 2, 3)
        os._exit(0)
    os.waitpid(pid, 0)
    [series] = merge([row.memory]).values()
    assert (series.requests, series.bytes_in, series.bytes_out) == (1, 2, 3)


def test_facts_of_the_supervisor() -> None:
    board = Board(3)
    board.add(Fact.REPLACED)
    assert (board.fact(Fact.WORKERS), board.fact(Fact.REPLACED)) == (3, 1)
