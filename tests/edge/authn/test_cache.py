from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.authn.cache import DEFAULT_CAPACITY, Verified, VerifiedTokens
from edge.model.identity import ANONYMOUS
from tests.edge.authn.simulator import key_set

_KEY = key_set().keys[0]


def _entry() -> Verified:
    return Verified(ANONYMOUS, _KEY, 0, 1)


def test_a_token_is_found_by_exactly_its_bytes() -> None:
    cache, entry = VerifiedTokens(), _entry()
    cache.put(b"Bearer a.b.c", entry)
    assert [entry, None, None] == [cache.get(raw) for raw in (b"Bearer a.b.c", b"Bearer a.b.C", b"Bearer a.b.c ")]


def test_a_discarded_token_is_forgotten_in_both_generations() -> None:
    cache = VerifiedTokens(capacity=2)
    cache.put(b"a", _entry())
    cache.put(b"b", _entry())  # `a` is in the old generation now
    cache.discard(b"a")
    cache.discard(b"b")
    assert [cache.get(b"a"), cache.get(b"b"), len(cache)] == [None, None, 0]


def test_a_hit_in_the_old_generation_keeps_the_token() -> None:
    cache, entry = VerifiedTokens(capacity=4), _entry()
    cache.put(b"a", entry)
    for name in (b"b", b"c", b"d"):
        cache.put(name, _entry())
        assert cache.get(b"a") is entry
    assert len(cache) <= 4


def test_a_token_put_again_stands_in_one_generation_only() -> None:
    cache = VerifiedTokens(capacity=4)
    for name in (b"a", b"b", b"c", b"a"):
        cache.put(name, _entry())
    assert len(cache) == 3


def test_a_thousand_tokens_in_turn_all_hit() -> None:
    cache = VerifiedTokens()
    names = [b"%d" % number for number in range(1000)]
    for name in names:
        cache.put(name, _entry())
    assert all(cache.get(name) is not None for _ in range(3) for name in names)


def test_the_default_holds_ten_thousand_and_no_more() -> None:
    cache = VerifiedTokens()
    entry = _entry()
    for number in range(3 * DEFAULT_CAPACITY):
        cache.put(b"%d" % number, entry)
        assert len(cache) <= DEFAULT_CAPACITY
    assert cache.get(b"0") is None


def test_putting_again_replaces() -> None:
    cache, second = VerifiedTokens(capacity=2), _entry()
    cache.put(b"a", _entry())
    cache.put(b"a", second)
    assert (second, 1) == (cache.get(b"a"), len(cache))


@settings(max_examples=60)
@given(st.integers(1, 12), st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 12)), max_size=60))
def test_against_a_list_in_order_of_use(capacity: int, steps: list[tuple[str, int]]) -> None:
    """What the list says is among the half-capacity last used must be there; what is there was put and not discarded."""
    cache, recent = VerifiedTokens(capacity), list[bytes]()
    for verb, number in steps:
        name = b"%d" % number
        found = cache.get(name) if verb == "g" else None
        if verb == "g":
            assert found is not None or name not in recent[-max(1, capacity // 2) :]
            assert found is None or name in recent
        if verb == "p":
            cache.put(name, _entry())
        if verb == "d":
            cache.discard(name)
        if name in recent and (verb != "g" or found is not None):
            recent.remove(name)
        if verb == "p" or found is not None:
            recent.append(name)
        assert len(cache) <= max(2, capacity)
