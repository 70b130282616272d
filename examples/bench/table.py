"""Results of the comparison as Markdown: `python -m examples.bench.table results.json [--into docs/performance.md]`.

With --into the tables replace what stands between the two marks in that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results -->", "<!-- /results -->"
SCENARIOS = ("json-h1", "json-h1-1ktok", "json-h2", "post-16k", "file-100k", "file-10m", "connect", "badsig")
TARGETS = {
    "json-h1": 0.7,
    "json-h1-1ktok": 0.7,
    "post-16k": 1.0,
    "file-100k": 1.1,
    "file-10m": 1.3,
    "connect": 1.6,
    "badsig": 1.3,
}
"""How much of what HAProxy needs we allow ourselves."""
REFERENCE, OURS = "haproxy", "edge"

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Contestant → scenario → figure."""


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cpu(medians: Medians, name: str, scenario: str) -> float | None:
    found = medians.get(name, {}).get(scenario)
    return found["cpu_us"] if found else None


def tables(results: Mapping[str, Any]) -> str:
    """CPU µs per request of all; ours against the reference; rates, latencies and errors."""
    medians: Medians = results["medians"]
    shown = [scenario for scenario in SCENARIOS if any(scenario in found for found in medians.values())]
    lines = [
        f"{results['when'][:10]}, {results['rounds']} rounds of {results['seconds']} s. CPU µs per request:",
        "",
        row(["", *shown]),
        row(["---", *("--:" for _ in shown)]),
    ]
    for name in sorted(medians, key=lambda name: (name != OURS, name != REFERENCE, name)):
        values = [cpu(medians, name, scenario) for scenario in shown]
        lines.append(row([name, *("–" if value is None else f"{value:,.0f}".replace(",", " ") for value in values)]))
    lines += ["", "This gateway against HAProxy, and the most we allow ourselves:", ""]
    lines += [row(["", *shown]), row(["---", *("--:" for _ in shown)])]
    ratios = [(cpu(medians, OURS, scenario), cpu(medians, REFERENCE, scenario)) for scenario in shown]
    lines.append(row(["measured", *(f"{ours / theirs:.2f}" if ours and theirs else "–" for ours, theirs in ratios)]))
    lines.append(row(["allowed", *(str(TARGETS.get(scenario, "–")) for scenario in shown)]))
    lines += ["", "This gateway:", "", row(["", *shown]), row(["---", *("--:" for _ in shown)])]
    for label, figure, digits in (
        ("requests/s", "rps", 0),
        ("p50 ms", "p50_ms", 2),
        ("p99 ms", "p99_ms", 2),
        ("errors", "errors", 0),
    ):
        found = [medians.get(OURS, {}).get(scenario) for scenario in shown]
        lines.append(row([label, *("–" if each is None else f"{each[figure]:.{digits}f}" for each in found)]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or put them into a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path)
    chosen = parser.parse_args(arguments)
    text = tables(json.loads(chosen.results.read_text()))
    if chosen.into is None:
        print(text)
        return
    before, begin, rest = chosen.into.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        parser.error(f"{chosen.into} has no {BEGIN} and {END}")
    chosen.into.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
