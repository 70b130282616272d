from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki.tlog import merkle
from pki.tlog.errors import ProofInvalid

LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(600)]
sizes = st.integers(1, 600)


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 6962 §2.1 as it is written."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\x01" + naive_root(hashes[:split]) + naive_root(hashes[split:])).digest()


def node(height: int, index: int) -> bytes:
    return naive_root(LEAVES[index << height : (index + 1) << height])


def test_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.root([]) == merkle.EMPTY_ROOT == naive_root([])


def test_leaf_and_node_hashes_are_told_apart_by_their_prefix() -> None:
    assert merkle.leaf_hash(LEAVES[0] + LEAVES[1]) != merkle.node_hash(LEAVES[0], LEAVES[1])
    assert merkle.leaf_hashes([b"a", b""]) == [sha256(b"\x00a").digest(), sha256(b"\x00").digest()]


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_root_equals_the_definition(size: int) -> None:
    assert merkle.root(LEAVES[:size]) == naive_root(LEAVES[:size])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_inclusion_proof_verifies_for_its_leaf_and_no_other(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    root = naive_root(LEAVES[:size])
    path = merkle.inclusion_proof(index, size, node)
    merkle.verify_inclusion(index, size, LEAVES[index], path, root)
    if other != index:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(other, size, LEAVES[index], path, root)
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(index, size, LEAVES[other], path, root)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_consistency_proof_verifies_and_no_changed_one_does(data: st.DataObject) -> None:
    new = data.draw(sizes)
    old = data.draw(st.integers(1, new))
    roots = naive_root(LEAVES[:old]), naive_root(LEAVES[:new])
    path = merkle.consistency_proof(old, new, node)
    merkle.verify_consistency(old, new, *roots, path)
    changed = [[*path, LEAVES[0]], path[:-1] if path else [LEAVES[1]]]
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        changed.append([*path[:place], sha256(path[place]).digest(), *path[place + 1 :]])
    for wrong in changed:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, new, *roots, wrong)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 5), (5, 5)])
def test_no_proof_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ProofInvalid):
        merkle.inclusion_proof(index, size, node)
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(index, size, LEAVES[0], [], LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(0, 5), (6, 5), (-1, 5)])
def test_no_consistency_proof_from_nothing_or_backwards(old: int, new: int) -> None:
    with pytest.raises(ProofInvalid):
        merkle.consistency_proof(old, new, node)


@pytest.mark.parametrize("proof", [[b""], [b"x" * 31], [b"x" * 33]])
def test_hashes_of_another_length_are_refused(proof: list[bytes]) -> None:
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(0, 2, LEAVES[0], proof, LEAVES[0])
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(1, 2, LEAVES[0], LEAVES[1], proof)


@pytest.mark.parametrize(
    ("old", "new", "proof"), [(3, 2, []), (2, 3, []), (1, 2, [LEAVES[1]] * 3), (0, 2, [LEAVES[0]])]
)
def test_consistency_of_impossible_shape_is_refused(old: int, new: int, proof: list[bytes]) -> None:
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(old, new, naive_root(LEAVES[:old]), naive_root(LEAVES[:new]), proof)


def test_same_size_with_different_roots_is_refused() -> None:
    merkle.verify_consistency(2, 2, LEAVES[0], LEAVES[0], [])
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(2, 2, LEAVES[0], LEAVES[1], [])


def test_every_tree_extends_the_empty_one_and_only_that() -> None:
    merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, LEAVES[0], [])
    for old, new, roots in [(0, 5, (LEAVES[1], LEAVES[0])), (0, 0, (LEAVES[0], LEAVES[0]))]:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, new, *roots, [])
