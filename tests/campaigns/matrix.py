"""Every end-to-end case over every cell of protocol (and its shell) × workers × store; the suite runs a sample of it."""

from __future__ import annotations

from contextlib import closing
from itertools import product
from pathlib import Path

from tests.e2e.trouble import ALL
from tests.e2e.world import NO_REDIS, PLACES, SHELLS, Place, Surroundings, is_possible, surroundings, world
from tests.wire.speaker import SPEAKERS


def campaign(directory: Path, rounds: int) -> str:
    """`rounds` times the whole product. A failure ends it, and says where it was."""
    directory.mkdir(exist_ok=True)
    told: list[str] = []
    with surroundings(directory) as around:
        for number, place, shell in product(range(rounds), PLACES, SHELLS):
            if is_possible(place):
                told.append(_cell(place, shell, around, directory / f"{number}-{place}-{shell}"))
            else:
                told.append(f"{place}: {NO_REDIS}")
    return "\n".join(told)


def _cell(place: Place, shell: str, around: Surroundings, directory: Path) -> str:
    """All cases; over HTTP/1.1 in one shell only, for it has no other."""
    protocols = [protocol for protocol in SPEAKERS if protocol == "2" or shell == SHELLS[0]]
    with world(place, shell, around, directory) as here:
        for protocol, (name, case) in product(protocols, ALL.items()):
            here.orders.clear()
            try:
                with closing(SPEAKERS[protocol](here.gateway)) as speaker:
                    case(here, speaker)
            except Exception as exc:
                exc.add_note(f"in {place}, HTTP/{protocol}, {shell}: {name}")
                raise
    cases = len(protocols) * len(ALL)
    asked = f"{len(here.told)} requests answered, each one leaf; {here.lost} lost to kills"
    return f"{place!s:<12}{shell:<11}HTTP/{', '.join(protocols):<8}{cases:>4} cases, 0 failures; {asked}"
