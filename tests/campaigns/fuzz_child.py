"""One target under atheris, in a process that ends with it: `python -m tests.campaigns.fuzz_child TARGET CORPUS OPTIONS…`."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    atheris = importlib.import_module("atheris")
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["edge", "pki"]):
        targets = importlib.import_module("tests.campaigns.fuzz_targets").TARGETS
        target = targets[name]
        target.run(target.seeds()[0])  # what is imported late is instrumented too
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
