"""The ledger: the newest counts, nothing older comes back, and what ends is told once."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge.registry.entry import Entry
from edge.registry.ledger import Held, Ledger, Moment
from tests.edge.registry.conftest import ENTRY, NOW_MS

NOW = Moment(NOW_MS, 1.0, frozenset())
SEQUENCE = ENTRY.sequence
GATEWAY = ((b"\xee" * 32, 5),)


def entry(**changes: object) -> Entry:
    return msgspec.structs.replace(ENTRY, **changes)


def later(ms: int, revoked: frozenset[tuple[bytes, int]] = frozenset()) -> Moment:
    return Moment(NOW_MS + ms, 1.0 + ms / 1000, revoked)


def ledger_of(*entries: Entry) -> Ledger:
    ledger = Ledger()
    for each in entries:
        assert ledger.take(each, b"raw", GATEWAY, NOW)
    return ledger


def held(ledger: Ledger, instance: str = "one") -> Held:
    found = ledger.find("orders", instance)
    assert found is not None
    return found


def test_what_is_taken_is_held_and_lives() -> None:
    ledger = ledger_of(ENTRY)
    assert (held(ledger).entry, held(ledger).raw, held(ledger).is_living) == (ENTRY, b"raw", True)
    assert (ledger.count("orders"), ledger.count("billing"), len(ledger.all())) == (1, 0, 1)


def test_the_same_again_and_older_are_no_news() -> None:
    ledger = ledger_of(ENTRY)
    older = entry(sequence=SEQUENCE - 1, host="10.6.6.6")
    assert not ledger.take(ENTRY, b"raw", GATEWAY, later(500))
    assert held(ledger).published_s == 1.5
    assert not ledger.take(older, b"old", GATEWAY, later(900))
    assert (held(ledger).entry, held(ledger).published_s) == (ENTRY, 1.5)
    assert ledger.is_stale(older)
    assert not ledger.is_stale(ENTRY)
    assert not ledger.is_stale(entry(instance="two", sequence=1))


def test_of_equal_sequences_all_readers_choose_the_same() -> None:
    a, b = entry(gateway="spiffe://mesh.internal/gw/a"), entry(gateway="spiffe://mesh.internal/gw/b")
    for order in ((a, b), (b, a)):
        ledger = Ledger()
        for each in order:
            ledger.take(each, b"raw", GATEWAY, NOW)
        assert held(ledger).entry == b


def test_a_tombstone_ends_it_and_a_replay_does_not_bring_it_back() -> None:
    ledger = ledger_of(ENTRY, entry(gone=True, sequence=SEQUENCE + 1))
    assert not held(ledger).is_living
    assert not ledger.take(ENTRY, b"raw", GATEWAY, NOW)
    assert not held(ledger).is_living


def test_a_lease_ends_by_its_time_and_that_is_told_once() -> None:
    ledger = ledger_of(ENTRY)
    assert ledger.sweep(later(29_999), is_revocation_new=False) == []
    ended = ledger.sweep(later(30_000), is_revocation_new=False)
    assert [each.entry for each in ended] == [ENTRY]
    assert ledger.sweep(later(30_001), is_revocation_new=False) == []
    assert ledger.all() == []


def test_a_lease_that_was_shortened_is_remembered_until_the_longer_one_is_over() -> None:
    short = entry(sequence=SEQUENCE + 1, expires_ms=NOW_MS + 1_000)
    ledger = ledger_of(ENTRY, short)
    assert len(ledger.sweep(later(1_000), is_revocation_new=False)) == 1
    assert not ledger.take(ENTRY, b"raw", GATEWAY, later(2_000))
    ledger.sweep(later(30_000), is_revocation_new=False)
    assert ledger.all() == []


def test_a_revocation_ends_it_at_once_and_for_good() -> None:
    ledger = ledger_of(ENTRY, entry(instance="two", holder=(("cd" * 32, "1f"),)))
    revoked = frozenset({(b"\xab" * 32, 0x1F)})
    assert ledger.sweep(later(10, revoked), is_revocation_new=False) == []
    ended = ledger.sweep(later(10, revoked), is_revocation_new=True)
    assert [each.entry.instance for each in ended] == ["one"]
    assert held(ledger, "two").is_living
    assert ledger.take(entry(sequence=SEQUENCE + 9), b"new", GATEWAY, later(20, revoked))
    assert not held(ledger).is_living


def test_a_revoked_gateway_takes_along_what_it_admitted() -> None:
    ledger = ledger_of(ENTRY)
    ended = ledger.sweep(later(10, frozenset(GATEWAY)), is_revocation_new=True)
    assert [each.entry for each in ended] == [ENTRY]


def test_an_entry_that_is_over_when_it_comes_never_lives() -> None:
    ledger = Ledger()
    assert ledger.take(ENTRY, b"raw", GATEWAY, later(30_000))
    assert not held(ledger).is_living
    assert ledger.sweep(later(30_001), is_revocation_new=False) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.booleans(), st.integers(0, 60)), min_size=1, max_size=12
    ),
    st.integers(0, 60),
)
def test_all_readers_agree_in_whatever_order_they_read(told: list[tuple[int, str, bool, int]], at_s: int) -> None:
    entries = {(n, g): entry(sequence=n, gateway=g, gone=gone, expires_ms=NOW_MS + s * 1000) for n, g, gone, s in told}
    newest = entries[max(entries)]
    for order in (list(entries.values()), list(entries.values())[::-1]):
        ledger = Ledger()
        for each in order:
            ledger.take(each, b"raw", GATEWAY, NOW)
        ledger.sweep(later(at_s * 1000), is_revocation_new=False)
        found = ledger.find("orders", "one")
        is_living = not newest.gone and newest.expires_ms > NOW_MS + at_s * 1000
        assert (found is not None and found.is_living) == is_living
