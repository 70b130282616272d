"""`scripts/campaign NAME [COUNT] [SEED]`: run one campaign at full count and print what it saw."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge.accept.deadlines import Deadlines
from tests.campaigns import (
    attach,
    churn,
    dial,
    differential,
    flood,
    fuzz,
    gateway,
    idle,
    instances,
    lanes,
    matrix,
    reload,
    renewal,
    revoke,
    rotation,
    scale,
    slow,
    stream,
    testssl,
    websocket,
)
from tests.campaigns.flood_attacks import ATTACKS
from tests.campaigns.fuzz_targets import TARGETS
from tests.e2e import tamper
from tests.edge.audit import kill
from tests.pki import crash
from tests.wire.websocket_rig import SocketRig


def run_ring(directory: Path, count: int, seed: int) -> str:
    """SIGKILL of log writers and notary (`count` rounds), standard and strict."""
    found = []
    for strict in (False, True):
        outcome = kill.run(directory / f"strict-{strict}", count, seed, strict=strict)
        assert not outcome.faults, outcome.faults
        found.append(f"{'strict' if strict else 'standard'}: {outcome}")
    return "\n".join(found)


def run_differential(directory: Path, count: int, seed: int) -> str:
    """Requests by chance to each shell: caller, gateway, log and upstream must read the same, or all must refuse alike."""
    return str(differential.campaign(directory, count, seed))


def run_lanes(directory: Path, count: int, seed: int) -> str:
    """Connections whose bytes nearly came before: what is remembered of heads must change nothing that anybody reads."""
    outcome = lanes.campaign(directory / "edge", count, seed)
    assert not outcome.disagreements, "\n".join(outcome.disagreements)
    return str(outcome)


def run_attach(directory: Path, count: int, seed: int) -> str:
    """Sidecars that come and go on two gateways under 300 requests a second: 0 failed."""
    outcome = attach.campaign(directory, count, seed)
    assert outcome.is_kept, f"\n{outcome}"
    return str(outcome)


def run_churn(directory: Path, count: int, seed: int) -> str:
    """Instances that come and go on two gateways under 300 requests a second: 0 failed, each turn known within 1 s."""
    outcome = churn.campaign(directory, count, seed)
    assert outcome.is_kept, f"\n{outcome}"
    return str(outcome)


def run_kill(directory: Path, count: int, seed: int) -> str:
    """SIGKILL of worker, notary and store of a whole gateway under load."""
    return str(gateway.campaign(directory / "edge", count, seed))


def run_matrix(directory: Path, count: int, seed: int) -> str:
    """Every end-to-end case over h1 and h2, 1 and 3 workers, embedded and external store."""
    del seed
    return matrix.campaign(directory, count)


def run_tamper(directory: Path, count: int, seed: int) -> str:
    """Random edits, deletions, reorders, truncations, rollbacks and forks of a log: each must be found."""
    tried, missed = tamper.run(count, seed, directory)
    assert not missed, missed
    return f"{sum(tried.values())} attacks, 0 missed: {dict(sorted(tried.items()))}"


def run_reload(directory: Path, count: int, seed: int) -> str:
    """Reloads under 300 requests a second while workers are replaced: 0 failed, none decided by two generations."""
    del seed
    return str(reload.campaign(directory / "edge", count, restarts=max(1, count // 20)))


def run_revoke(directory: Path, count: int, seed: int) -> str:
    """Revocations under 300 requests a second: each kind of connection is cut within 1 s (p99), nobody else notices."""
    del seed
    outcome = revoke.campaign(directory / "edge", count, goes_silent=True)
    assert all(outcome.p99_s(kind) <= revoke.WITHIN_S for kind in revoke.KINDS), f"\n{outcome}"
    return str(outcome)


def run_dial(directory: Path, count: int, seed: int) -> str:
    """CPU of a dial beside a bare handshake: at most 0.5 ms above it."""
    del seed
    cost = dial.campaign(directory / "edge", count)
    assert cost.above <= dial.MAX_MS, cost
    return str(cost)


def run_rotation(directory: Path, count: int, seed: int) -> str:
    """Intermediates, root and own certificates replaced under load: 0 failed, the old ones refused within 1 s."""
    del seed
    outcome = rotation.campaign(directory / "edge", count)
    assert max(outcome.refused_s.values()) <= rotation.WITHIN_S, outcome
    return str(outcome)


def run_renewal(directory: Path, count: int, seed: int) -> str:
    """Certificates of five minutes renewed by age under load until the first have ended: 0 failed."""
    del seed
    return str(renewal.campaign(directory / "edge", count))


def run_idle(directory: Path, count: int, seed: int) -> str:
    """Idle connections over each protocol: at most 40 KiB of memory each."""
    del seed
    outcomes = idle.campaign(directory / "edge", count)
    assert all(outcome.bytes_each <= idle.MAX_BYTES_EACH for outcome in outcomes), outcomes
    return "\n".join(map(str, outcomes))


def run_stream(directory: Path, count: int, seed: int) -> str:
    """So many MiB up and down over each protocol: hashes, back-pressure, at most 16 MiB of memory more."""
    del seed
    return "\n".join(map(str, stream.campaign(directory / "edge", count)))


def run_ca_crash(directory: Path, count: int, seed: int) -> str:
    """SIGKILL of the CA at every (`count`-th) write, sync and rename of issuing, enrolling, revoking and founding."""
    kills = crash.campaign(directory, count, seed % count)
    return f"{sum(kills.values())} kills, never a certificate without a record: {kills}"


def run_fuzz(directory: Path, count: int, seed: int, only: str | None = None) -> str:
    """Every parser of foreign bytes for so many minutes each (`fuzz [TARGET] [MINUTES]`): no crash, nothing slow."""
    return fuzz.campaign(directory, count, seed, only)


def run_testssl(directory: Path, count: int, seed: int) -> str:
    """testssl.sh against the public listener: nothing above LOW but what SECURITY.md explains."""
    del count, seed
    return testssl.campaign(directory / "edge")


def run_scale(directory: Path, count: int, seed: int) -> str:
    """CPU to match and balance a request with 1000 services of three instances, against 10: within a tenth."""
    del directory, seed
    outcome = scale.campaign(count)
    assert max(outcome.ratios.values()) <= scale.MAX_RATIO, outcome
    return str(outcome)


def run_slow(directory: Path, count: int, seed: int) -> str:
    """`count` connections of each kind that hold on: all cut by their deadline, others served, memory bounded."""
    del seed
    return str(slow.campaign(directory / "edge", count, Deadlines()))


def run_flood(directory: Path, count: int, seed: int, only: str = "") -> str:
    """Each flood (`flood [PREFIX] SECONDS`): cut with its code, memory bounded, others served as beside valid load."""
    del seed
    outcomes = flood.campaign(directory / "edge", count, [name for name in ATTACKS if name.startswith(only)])
    faults = {outcome.attack: outcome.faults() for outcome in outcomes if outcome.faults()}
    assert not faults, faults
    return f"{len(outcomes)} floods, no fault"


def run_websocket(directory: Path, count: int, seed: int) -> str:
    """WebSockets of random frames, some broken, over HTTP/1.1 and HTTP/2."""
    rig = SocketRig(directory / "edge")
    try:
        return str(dict(websocket.campaign(rig, count, seed)))
    finally:
        rig.close()


def run_instances(directory: Path, count: int, seed: int) -> str:
    """Instances that stop, fail and hang under load (`count` troubles), callers that leave: counts return to nothing."""
    return str(instances.campaign(directory / "edge", count, seed))


def run_balance(directory: Path, count: int, seed: int) -> str:
    """CPU of match and choice among `count` services of three instances, beside ten, by each policy."""
    del directory, seed
    found = asyncio.run(instances.costs(count, 6_000))
    assert all(ratio <= scale.MAX_RATIO for _, _, ratio in found.values()), found
    return "\n".join(
        f"{policy}: {few:.0f} ns among {instances.FEW} services, {many:.0f} ns among {count}, ratio {ratio:.3f}"
        for policy, (few, many, ratio) in found.items()
    )


CAMPAIGNS: dict[str, tuple[Callable[[Path, int, int], str], int]] = {
    "balance": (run_balance, 1000),
    "ca-crash": (run_ca_crash, 1),
    "dial": (run_dial, 500),
    "attach": (run_attach, 40),
    "churn": (run_churn, 60),
    "differential": (run_differential, 100_000),
    "flood": (run_flood, 3),
    "fuzz": (run_fuzz, 10),
    "idle": (run_idle, 10_000),
    "instances": (run_instances, 60),
    "kill": (run_kill, 60),
    "lanes": (run_lanes, 100_000),
    "matrix": (run_matrix, 1),
    "reload": (run_reload, 100),
    "renewal": (run_renewal, 6),
    "revoke": (run_revoke, 100),
    "ring": (run_ring, 100),
    "rotation": (run_rotation, 3),
    "scale": (run_scale, 200),
    "stream": (run_stream, 2048),
    "slow": (run_slow, 200),
    "tamper": (run_tamper, 10_000),
    "testssl": (run_testssl, 1),
    "websocket": (run_websocket, 2000),
}


def main(arguments: list[str]) -> int:
    """Run one; without a name list them."""
    if not arguments or arguments[0] not in CAMPAIGNS:
        for name, (work, count) in CAMPAIGNS.items():
            print(f"{name:<13}{count:>8}  {(work.__doc__ or '').splitlines()[0]}")
        return 0 if not arguments else 2
    work, count = CAMPAIGNS[arguments[0]]
    if arguments[0] == "fuzz" and len(arguments) > 1 and not arguments[1].isdigit():
        only = arguments.pop(1)
        if only not in TARGETS:
            print(f"targets: {' '.join(TARGETS)}")
            return 2
        work = partial(run_fuzz, only=only)
    elif arguments[0] == "flood" and len(arguments) > 1 and not arguments[1].isdigit():
        work = partial(run_flood, only=arguments.pop(1))
    count = int(arguments[1]) if len(arguments) > 1 else count
    seed = int(arguments[2]) if len(arguments) > 2 else time.time_ns() % 1_000_000
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edge-campaign-") as directory:
        print(work(Path(directory), count, seed))
    print(f"{arguments[0]}: {count} rounds, seed {seed}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
