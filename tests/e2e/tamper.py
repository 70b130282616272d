"""The tamper campaign: change a copy of a good log in a random way, and see that the verifier notices and says where.

`run(count, seed, directory)` is called with a small count by `test_tamper.py` and with a large one by
`scripts/campaign tamper`. Each round draws one attack of `ATTACKS`; an attack tells what the verifier must say. The
attacker can write every file of the log and knows how it is built; he does not have the signing key, and not the
checkpoint that was remembered elsewhere.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.audit.verify import Report, verify
from pki.tlog import note, wal
from pki.tlog.checkpoint import Checkpoint
from pki.tlog.io_log import LogWriter, head_copy_of
from pki.tlog.merkle import leaf_hash, leaf_hashes
from pki.tlog.tiles import WIDTH, bundle_path, length_prefixed, partials, split_entries, tile_path

ORIGIN = "home.example/edge"
SIGNER = note.Signer(ORIGIN, b"\x05" * 32)
CONTENT = frozenset({"edit", "deletion", "insertion", "reorder", "truncation"})


@dataclass(frozen=True)
class Expected:
    """What the verifier must say: one of these kinds, and this index when there is one to name."""

    kinds: frozenset[str]
    index: int | None = None
    is_exact: bool = True


@dataclass(frozen=True)
class Missed:
    """A round in which the verifier was wrong."""

    round: int
    attack: str
    expected: Expected
    report: Report


class Victim:
    """A good log, its older self, another history of it, and a working copy that an attack may change."""

    def __init__(self, directory: Path, seed: int) -> None:
        draw = random.Random(seed)
        self.size = draw.randrange(600, 1400)
        older = draw.randrange(1, self.size)
        self.entries = [b'{"n":%d,"pad":"%s"}' % (n, b"x" * draw.randrange(40)) for n in range(self.size)]
        self.good, self.old, self.fork = (directory / name for name in ("good", "old", "fork"))
        self.copy = directory / "copy"
        self.old_head = _write(self.good, self.entries[:older])
        shutil.copytree(self.good, self.old)
        self.head = _write(self.good, self.entries[older:])
        forked = [b'{"fork":true}', *self.entries[1:]]
        _write(self.fork, forked)

    def reset(self, source: Path | None = None) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(source or self.good, self.copy)

    def bundle(self, index: int) -> tuple[Path, list[bytes]]:
        width = min(WIDTH, self.size - index * WIDTH)
        path = self.copy / bundle_path(index, width)
        return path, split_entries(path.read_bytes(), width)

    def pick(self, draw: random.Random) -> tuple[int, int]:
        """A bundle and a place in it."""
        return divmod(draw.randrange(self.size), WIDTH)

    def put(self, path: Path, entries: list[bytes]) -> None:
        path.write_bytes(b"".join(length_prefixed(entries)))


Attack = Callable[[Victim, random.Random], Expected]


def edit_a_byte(victim: Victim, draw: random.Random) -> Expected:
    index, place = victim.pick(draw)
    path, entries = victim.bundle(index)
    entry = bytearray(entries[place])
    entry[draw.randrange(len(entry))] ^= draw.randrange(1, 256)
    entries[place] = bytes(entry)
    victim.put(path, entries)
    return Expected(frozenset({"edit"}), index * WIDTH + place)


def flip_any_bit_of_a_bundle(victim: Victim, draw: random.Random) -> Expected:
    """Also of the lengths, so that the bundle may fall apart from there on."""
    index, _ = victim.pick(draw)
    path, entries = victim.bundle(index)
    raw = bytearray(path.read_bytes())
    at = draw.randrange(len(raw))
    raw[at] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)
    place, passed = 0, 0
    while passed + 2 + len(entries[place]) <= at:
        passed += 2 + len(entries[place])
        place += 1
    return Expected(CONTENT, index * WIDTH + place)


def delete_an_entry(victim: Victim, draw: random.Random) -> Expected:
    index, place = victim.pick(draw)
    path, entries = victim.bundle(index)
    victim.put(path, entries[:place] + entries[place + 1 :])
    return Expected(frozenset({"deletion", "truncation", "edit"}), index * WIDTH + place)


def delete_an_entry_and_close_the_gap(victim: Victim, draw: random.Random) -> Expected:
    """All later entries move up by one, through every bundle; the last place stays empty."""
    gone = draw.randrange(victim.size)
    left = victim.entries[:gone] + victim.entries[gone + 1 :]
    for index in range(gone // WIDTH, (victim.size + WIDTH - 1) // WIDTH):
        path, _ = victim.bundle(index)
        victim.put(path, left[index * WIDTH : (index + 1) * WIDTH])
    return Expected(frozenset({"deletion", "truncation", "edit"}), gone)


def insert_an_entry(victim: Victim, draw: random.Random) -> Expected:
    index, place = victim.pick(draw)
    path, entries = victim.bundle(index)
    victim.put(path, [*entries[:place], b'{"forged":1}', *entries[place:]])
    return Expected(frozenset({"insertion", "edit"}), index * WIDTH + place)


def exchange_two_entries(victim: Victim, draw: random.Random) -> Expected:
    one, two = sorted(draw.sample(range(victim.size), 2))
    for at, by in ((one, two), (two, one)):
        path, entries = victim.bundle(at // WIDTH)
        entries[at % WIDTH] = victim.entries[by]
        victim.put(path, entries)
    return Expected(frozenset({"reorder", "edit", "deletion", "insertion"}), one)


def cut_the_tail(victim: Victim, draw: random.Random) -> Expected:
    """Everything from some entry on, with the tiles that speak of it; the checkpoint stays."""
    left = draw.randrange(victim.size)
    for index in range(left // WIDTH, (victim.size + WIDTH - 1) // WIDTH):
        width = min(WIDTH, victim.size - index * WIDTH)
        path, entries = victim.bundle(index)
        keep = entries[: max(0, left - index * WIDTH)]
        if keep:
            victim.put(path, keep)
            (victim.copy / tile_path(0, index, width)).write_bytes(b"".join(leaf_hashes(keep)))
        else:
            path.unlink()
            (victim.copy / tile_path(0, index, width)).unlink()
    return Expected(frozenset({"truncation"}), left)


def remove_a_bundle(victim: Victim, draw: random.Random) -> Expected:
    index, _ = victim.pick(draw)
    victim.bundle(index)[0].unlink()
    return Expected(frozenset({"deletion", "truncation"}), index * WIDTH)


def edit_with_its_tile(victim: Victim, draw: random.Random) -> Expected:
    """The leaf hash is changed along with the entry: only the bundle can be named, or nothing when it is the last one."""
    index, place = victim.pick(draw)
    path, entries = victim.bundle(index)
    entries[place] += b" "
    victim.put(path, entries)
    width = len(entries)
    (victim.copy / tile_path(0, index, width)).write_bytes(b"".join(map(leaf_hash, entries)))
    if width < WIDTH:
        return Expected(frozenset({"root"}))
    return Expected(frozenset({"edit"}), index * WIDTH)


def rewrite_everything_but_the_checkpoint(victim: Victim, draw: random.Random) -> Expected:
    checkpoint = (victim.good / "checkpoint").read_bytes()
    victim.reset(victim.fork)
    (victim.copy / "checkpoint").write_bytes(checkpoint)
    return Expected(frozenset({"root", "edit"}), is_exact=False)


def damage_any_file(victim: Victim, draw: random.Random) -> Expected:
    """Whatever lies under `tile/`, also what only older checkpoints need."""
    path = draw.choice(sorted(p for p in (victim.copy / "tile").rglob("*") if p.is_file()))
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= draw.randrange(1, 256)
    path.write_bytes(raw)
    return Expected(CONTENT if "entries" in path.parts else frozenset({"tile"}), is_exact=False)


def remove_a_tile(victim: Victim, draw: random.Random) -> Expected:
    """One that the present checkpoint needs; those of older ones may be deleted at any time."""
    needed = [tile_path(0, index) for index in range(victim.size // WIDTH)]
    needed += [tile_path(level, index, width) for level, index, width in partials(victim.size)]
    (victim.copy / draw.choice(needed)).unlink()
    return Expected(frozenset({"tile"}), is_exact=False)


def damage_the_write_ahead_file(victim: Victim, draw: random.Random) -> Expected:
    """The live segment, anywhere but in the frame's spare room: its entries are under the checkpoint, the file is not."""
    name, raw = max(((n, (victim.copy / n).read_bytes()) for n in wal.NAMES), key=lambda pair: len(pair[1]))
    changed = bytearray(raw)
    changed[draw.randrange(len(raw))] ^= draw.randrange(1, 256)
    (victim.copy / name).write_bytes(changed)
    return Expected(frozenset({"write-ahead"}), victim.size)


def roll_back(victim: Victim, draw: random.Random) -> Expected:
    """The whole directory as it was: consistent and signed, only older than what is remembered."""
    victim.reset(victim.old)
    return Expected(frozenset({"rollback"}), victim.old_head.size)


def fork(victim: Victim, draw: random.Random) -> Expected:
    """A second history, signed with the log's own key: only what is remembered tells them apart."""
    victim.reset(victim.fork)
    return Expected(frozenset({"fork"}))


def change_the_checkpoint(victim: Victim, draw: random.Random) -> Expected:
    path = victim.copy / "checkpoint"
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(len(raw))] ^= draw.randrange(1, 256)
    path.write_bytes(raw)
    return Expected(frozenset({"checkpoint"}))


def remove_the_checkpoint(victim: Victim, draw: random.Random) -> Expected:
    (victim.copy / "checkpoint").unlink()
    return Expected(frozenset({"missing"}))


ATTACKS: tuple[Attack, ...] = (
    edit_a_byte,
    flip_any_bit_of_a_bundle,
    delete_an_entry,
    delete_an_entry_and_close_the_gap,
    insert_an_entry,
    exchange_two_entries,
    cut_the_tail,
    remove_a_bundle,
    edit_with_its_tile,
    rewrite_everything_but_the_checkpoint,
    damage_any_file,
    remove_a_tile,
    damage_the_write_ahead_file,
    roll_back,
    fork,
    change_the_checkpoint,
    remove_the_checkpoint,
)


def run(count: int, seed: int, directory: Path) -> tuple[Counter[str], list[Missed]]:
    """`count` rounds, every attack in turn, a new log every 160; → how often each attack ran, and what was missed."""
    draw = random.Random(seed)
    ran: Counter[str] = Counter()
    missed: list[Missed] = []
    victim: Victim | None = None
    for number in range(count):
        if victim is None or number % 160 == 0:
            shutil.rmtree(directory / "logs", ignore_errors=True)
            (directory / "logs").mkdir()
            victim = Victim(directory / "logs", draw.randrange(1 << 30))
        attack = ATTACKS[number % len(ATTACKS)]
        victim.reset()
        expected = attack(victim, draw)
        report = verify(victim.copy, SIGNER.verifier, victim.head)
        ran[attack.__name__] += 1
        if not _is_right(report, expected):
            missed.append(Missed(number, attack.__name__, expected, report))
    return ran, missed


def _is_right(report: Report, expected: Expected) -> bool:
    if report.ok or report.kind not in expected.kinds:
        return False
    return not expected.is_exact or report.first_bad_index == expected.index


def _write(directory: Path, entries: list[bytes]) -> Checkpoint:
    writer = LogWriter.open(directory, origin=ORIGIN, signer=SIGNER, head_copy=head_copy_of(directory))
    try:
        writer.append(entries)
        return writer.publish()
    finally:
        writer.close()
