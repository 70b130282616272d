"""The Merkle tree of RFC 6962 §2.1: hashes, roots, and both kinds of proof.

Pure. A leaf is SHA-256(0x00 || entry), an inner node SHA-256(0x01 || left || right): the two prefixes keep anyone from
passing off an inner node as an entry. A tree of n leaves splits at the largest power of two below n, so the left part is
always perfect and never changes again.

Proofs are made from a function `node(height, index)` that gives the root of the perfect subtree over the leaves
`index·2^height … (index+1)·2^height`: tiles on disk, or a list in a test, can both answer it. Proofs are lists of
32-byte hashes, lowest level first. Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2 step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from hmac import compare_digest

from pki.tlog.errors import ProofInvalid

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeSource = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 §2.1, the hash of one entry."""
    return sha256(b"\x00" + entry).digest()


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """`leaf_hash` of each entry; one comprehension, because this is the largest cost of an append."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1, the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes], right: bytes | None) -> bytes | None:
    """Root over neighbouring perfect subtrees of equal height, with an optional smaller tree `right` of them.

    The odd subtree left over at each height is the next larger part of the tree's right edge, so it swallows `right`.
    → None only when there is nothing at all.
    """
    level = list(hashes)
    while level:
        if len(level) & 1:
            last = level.pop()
            right = last if right is None else node_hash(last, right)
        level = [sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=True)]
    return right


def root(hashes: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaf hashes."""
    folded = fold(hashes, None)
    return EMPTY_ROOT if folded is None else folded


def inclusion_proof(index: int, size: int, node: NodeSource) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves (RFC 6962 §2.1.1).

    Raises:
        ProofInvalid: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    begin, end = 0, size
    ranges = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return [_range_hash(b, e, node) for b, e in reversed(ranges)]


def consistency_proof(old_size: int, new_size: int, node: NodeSource) -> list[bytes]:
    """Proof that the tree of `old_size` leaves is a prefix of the one of `new_size` (RFC 6962 §2.1.2).

    Raises:
        ProofInvalid: `old_size` is 0 (everything extends the empty tree, nothing is proven) or larger than `new_size`.
    """
    if not 0 < old_size <= new_size:
        raise ProofInvalid(f"no consistency proof from {old_size} to {new_size}")
    begin, end = 0, new_size
    known = True  # the verifier already holds the root of the left part as the old root itself
    ranges = []
    while old_size != end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
            known = False
    if not known:
        ranges.append((begin, end))
    return [_range_hash(b, e, node) for b, e in reversed(ranges)]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], expected_root: bytes) -> None:
    """RFC 9162 §2.1.3.2.

    Raises:
        ProofInvalid: the leaf hash is not at `index` of the tree with this size and root.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    _check_shapes((leaf, expected_root, *proof))
    position, last = index, size - 1
    value = leaf
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("proof is too long")
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            value = node_hash(value, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofInvalid("proof is too short")
    if not compare_digest(value, expected_root):
        raise ProofInvalid("proof does not lead to the root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 §2.1.4.2, with the empty tree as a prefix of every tree.

    Raises:
        ProofInvalid: the newer tree does not extend the older one.
    """
    if not 0 <= old_size <= new_size:
        raise ProofInvalid(f"a tree of {new_size} cannot extend one of {old_size}")
    _check_shapes((old_root, new_root, *proof))
    if old_size in (0, new_size):
        _check_trivial(old_size, new_size, old_root, new_root, proof)
        return
    if not proof:
        raise ProofInvalid("proof is too short")
    # 2. an old tree that is a perfect subtree is itself the first node of the path
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    # 3.–4. skip the levels where the old tree's right edge is a left child's end
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    # 5.–6. rebuild both roots side by side
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    # 7. both must match, and the path must be used up
    if last != 0:
        raise ProofInvalid("proof is too short")
    if not (compare_digest(old, old_root) and compare_digest(new, new_root)):
        raise ProofInvalid("proof does not lead to both roots")


def _check_trivial(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """From the empty tree to any, and from a tree to itself, nothing is left to prove but the roots."""
    if proof:
        raise ProofInvalid("proof must be empty")
    if old_size == 0 and not compare_digest(old_root, EMPTY_ROOT):
        raise ProofInvalid("not the root of the empty tree")
    if old_size == new_size and not compare_digest(old_root, new_root):
        raise ProofInvalid("same size, different roots")


def _split(count: int) -> int:
    """The largest power of two below `count`, for `count` ≥ 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_hash(begin: int, end: int, node: NodeSource) -> bytes:
    """Root over the leaves `begin … end`; `begin` is a multiple of a power of two not below the range's length."""
    parts = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        parts.append(node(height, begin >> height))
        begin += 1 << height
    value = parts.pop()
    for left in reversed(parts):
        value = node_hash(left, value)
    return value


def _check_shapes(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofInvalid("a hash is not 32 bytes")
