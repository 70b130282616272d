from __future__ import annotations

from collections.abc import Callable

from edge.writes import MAX_BYTES, Writes


class Wire:
    """A transport."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.pieces.append(data)

    def is_closing(self) -> bool:
        return self.is_closed


class Loop:
    """What is called when a turn ends."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.writes = Writes(self.due.append)

    def end_turn(self) -> None:
        due, self.due[:] = list(self.due), []
        for each in due:
            each()


def test_pieces_for_many_leave_in_their_order_when_the_turn_ends() -> None:
    loop, sent = Loop(), list[bytes]()
    wires = [Wire() for _ in range(3)]
    for wire in wires:
        wire.pieces = sent
    for number, wire in enumerate(wires):
        loop.writes.write(wire, b"%d" % number)
    assert (sent, len(loop.due)) == ([], 1)
    loop.end_turn()
    assert sent == [b"0", b"1", b"2"]
    loop.writes.write(wires[0], b"next turn")
    assert len(loop.due) == 1


def test_a_second_piece_takes_the_first_along_at_once() -> None:
    loop, wire = Loop(), Wire()
    loop.writes.write(wire, b"a")
    loop.writes.write(wire, b"b")
    assert wire.pieces == [b"ab"]
    loop.writes.write(wire, b"c")
    loop.end_turn()
    assert wire.pieces == [b"ab", b"c"]


def test_what_is_large_or_streams_goes_at_once_behind_what_waits() -> None:
    loop, wire = Loop(), Wire()
    loop.writes.write(wire, bytes(MAX_BYTES + 1))
    loop.writes.write(wire, b"a")
    loop.writes.write_now(wire, b"b")
    assert wire.pieces == [bytes(MAX_BYTES + 1), b"ab"]
    loop.end_turn()
    assert len(wire.pieces) == 2


def test_before_a_connection_is_closed_what_waits_for_it_is_written() -> None:
    loop, wire, other = Loop(), Wire(), Wire()
    loop.writes.write(wire, b"a")
    loop.writes.write(other, b"o")
    loop.writes.settle(wire)
    loop.writes.settle(wire)
    wire.is_closed = True
    loop.end_turn()
    assert (wire.pieces, other.pieces) == ([b"a"], [b"o"])


def test_who_is_gone_when_the_turn_ends_gets_nothing_and_the_others_all() -> None:
    loop, gone, other = Loop(), Wire(), Wire()
    loop.writes.write(gone, b"a")
    loop.writes.write(other, b"b")
    gone.is_closed = True
    loop.end_turn()
    assert (gone.pieces, other.pieces) == ([], [b"b"])


def test_what_is_written_while_the_turn_ends_leaves_with_the_next() -> None:
    loop = Loop()

    class Asking(Wire):
        """Its client answers at once."""

        def write(self, data: bytes) -> None:
            super().write(data)
            if len(self.pieces) == 1:
                loop.writes.write(self, b"again")

    wire = Asking()
    loop.writes.write(wire, b"a")
    loop.end_turn()
    assert wire.pieces == [b"a"]
    loop.end_turn()
    assert wire.pieces == [b"a", b"again"]
