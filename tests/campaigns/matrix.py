"""Every end-to-end case over every cell of protocol × workers × store; the suite runs a sample of the same (test_matrix)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.e2e.cases import CASES
from tests.e2e.trouble import TROUBLE
from tests.e2e.world import NO_REDIS, PLACES, is_possible, surroundings, world
from tests.wire.speaker import SPEAKERS


def campaign(directory: Path, rounds: int) -> str:
    """`rounds` times the whole product. A failure ends it, and says where it was."""
    done, cells, asked = 0, [], 0
    directory.mkdir(exist_ok=True)
    with surroundings(directory) as around:
        for number, place in ((number, place) for number in range(rounds) for place in PLACES):
            if not is_possible(place):
                cells.append(f"{place}: {NO_REDIS}")
                continue
            with world(place, around, directory / f"{number}-{place}") as here:
                for protocol, speaks in SPEAKERS.items():
                    for name, case in (CASES | TROUBLE).items():
                        here.orders.clear()
                        try:
                            with closing(speaks(here.gateway)) as speaker:
                                case(here, speaker)
                        except Exception as exc:
                            exc.add_note(f"in {place}, HTTP/{protocol}: {name}")
                            raise
                        done += 1
            asked += len(here.told)
            cells.append(f"{place}: {len(here.told)} requests answered, each one leaf; {here.lost} lost to kills")
    return "\n".join([*cells, f"{done} cases over HTTP/1.1 and HTTP/2, {asked} requests, 0 failures"])
