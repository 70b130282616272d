"""Fuzzing: any input gives a value or our error, never another, and never takes long. The targets are in `fuzz_targets`.

With atheris (coverage-guided, `pip install atheris`) each target runs in a process of its own; without it, and in the suite,
a loop mutates the seeds. What once failed lies in `corpus/TARGET/` and is tried first, always.
"""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.fuzz_targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
MAX_INPUT_BYTES = 4096
SLOW_S = 2.0
"""Of processor time for one input of at most `MAX_INPUT_BYTES`; on a loaded machine too."""
_INTERESTING = (0, 1, 0x0A, 0x0D, 0x20, 0x22, 0x25, 0x2F, 0x3A, 0x5C, 0x7F, 0x80, 0xC3, 0xFF)


@dataclass(frozen=True)
class Outcome:
    """What one target saw."""

    target: str
    engine: str
    inputs: int
    slowest_s: float
    seconds: float

    def __str__(self) -> str:
        speed = f"{self.inputs:>9} inputs in {self.seconds:.0f} s, slowest {self.slowest_s:.3f} s"
        return f"{self.target:<8} {self.engine:<8} {speed}"


def seeds(target: Target) -> list[bytes]:
    """What failed before, and what is good."""
    directory = CORPUS / target.name
    kept = [file.read_bytes() for file in sorted(directory.iterdir())] if directory.is_dir() else []
    return [*kept, *target.seeds()]


def mutate(draw: random.Random, pool: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One to six small changes of a seed."""
    data = bytearray(draw.choice(pool))
    for _ in range(draw.randint(1, 6)):
        at = draw.randint(0, len(data))
        length = min(len(data) - at, draw.choice((1, 1, 2, 4, 16, 64)))
        kind = draw.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + length] = b""
        elif kind == 2:
            data[at:at] = bytes(draw.choice(_INTERESTING) for _ in range(draw.randint(1, 4)))
        elif kind == 3:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
        elif kind == 4:
            other = draw.choice(pool)
            data[at:] = other[draw.randint(0, len(other)) :]
        elif kind == 5 and words:
            data[at:at] = draw.choice(words)
        elif kind == 6:
            data[at : at + length] = draw.randbytes(length)
        elif data:
            data[at % len(data)] = draw.choice(_INTERESTING)
    return bytes(data[:MAX_INPUT_BYTES])


def by_mutation(target: Target, seed: int, *, count: int | None = None, seconds: float = 0.0) -> Outcome:
    """`count` inputs, or as many as `seconds` allow. Raises what the target raised, with the input in a note."""
    draw, pool = random.Random(seed), seeds(target)
    began, slowest_s, done = time.monotonic(), 0.0, 0
    while done < count if count is not None else time.monotonic() - began < seconds:
        data = pool[done] if done < len(pool) else mutate(draw, pool, target.words)
        at = time.process_time()
        try:
            target.run(data)
        except BaseException as exc:
            exc.add_note(f"fuzz target {target.name}, seed {seed}, input {data!r}")
            raise
        took_s = time.process_time() - at
        assert took_s < SLOW_S, f"{target.name}: {took_s:.1f} s for {data!r}"
        slowest_s, done = max(slowest_s, took_s), done + 1
    return Outcome(target.name, "mutation", done, slowest_s, time.monotonic() - began)


def by_coverage(target: Target, seed: int, seconds: float, directory: Path) -> Outcome:
    """libFuzzer's engine in a child; a failure leaves its input below `directory` and in the message."""
    corpus = directory / f"corpus-{target.name}"
    corpus.mkdir(parents=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    words = directory / f"words-{target.name}"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = [
        f"-max_total_time={int(seconds)}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-seed={seed % 2**32 or 1}",
        "-timeout=10",
    ]
    options += ["-print_final_stats=1", "-rss_limit_mb=1024", f"-dict={words}", f"-artifact_prefix={directory}/failed-"]
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.campaigns.fuzz_child", target.name, str(corpus), *options]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 120)
    failed = [file.read_bytes() for file in directory.glob("failed-*")]
    assert (ran.returncode, failed) == (0, []), f"{target.name}: {failed!r}\n{(ran.stdout + ran.stderr)[-4000:]}"
    inputs = re.search(r"stat::number_of_executed_units:\s+(\d+)", ran.stderr)
    slowest = re.search(r"stat::slowest_unit_time_sec:\s+(\d+)", ran.stderr)
    assert inputs is not None, ran.stderr[-2000:]
    slowest_s = float(slowest[1]) if slowest else 0.0
    return Outcome(target.name, "atheris", int(inputs[1]), slowest_s, time.monotonic() - began)


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def campaign(directory: Path, minutes: float, seed: int, only: str | None) -> str:
    """Each target for so many minutes."""
    has_atheris = importlib.util.find_spec("atheris") is not None
    found = []
    for name, target in TARGETS.items():
        if only in (None, name):
            if has_atheris:
                outcome = by_coverage(target, seed, minutes * 60, directory / name)
            else:
                outcome = by_mutation(target, seed, seconds=minutes * 60)
            print(outcome, flush=True)
            found.append(outcome)
    return f"{len(found)} targets, {sum(each.inputs for each in found)} inputs, 0 failures"
