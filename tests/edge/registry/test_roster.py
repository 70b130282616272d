"""The roster: who may be sent requests, and the promise that nothing changes unless something changed."""

from __future__ import annotations

from dataclasses import replace

from edge.model.instance import Instance
from edge.registry.roster import Roster

ONE = Instance("orders", "one", ("127.0.0.1", 9101))
TWO = Instance("orders", "two", ("127.0.0.1", 9102))
OTHER = Instance("billing", "one", ("127.0.0.1", 9201))


def roster_of(*instances: Instance) -> Roster:
    roster = Roster()
    for each in instances:
        roster.put(each)
    return roster


def test_nobody_is_there_before_registering() -> None:
    assert Roster().instances("orders") == ()


def test_instances_stand_by_service_in_the_order_of_their_names() -> None:
    roster = roster_of(TWO, OTHER, ONE)
    assert (roster.instances("orders"), roster.instances("billing")) == ((ONE, TWO), (OTHER,))


def test_the_tuple_is_the_same_object_until_its_service_changes() -> None:
    roster = roster_of(ONE)
    before, generation = roster.instances("orders"), roster.generation
    roster.put(ONE)
    roster.remove("orders", "unknown")
    roster.remove("unknown", "one")
    assert roster.instances("orders") is before
    assert roster.generation == generation
    roster.put(OTHER)
    assert roster.instances("orders") is before
    assert roster.generation == generation + 1


def test_an_instance_of_the_same_name_is_replaced() -> None:
    roster = roster_of(ONE, TWO)
    moved = replace(ONE, address=("127.0.0.1", 9109), is_draining=True)
    roster.put(moved)
    assert roster.instances("orders") == (moved, TWO)


def test_what_is_removed_is_gone_and_the_last_one_leaves_nothing() -> None:
    roster = roster_of(ONE, TWO)
    roster.remove("orders", "one")
    assert roster.instances("orders") == (TWO,)
    roster.remove("orders", "two")
    assert roster.instances("orders") == ()
    assert roster.generation == 4
