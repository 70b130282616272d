#!/usr/bin/env python3
"""Issue a certificate for a service (see --help). Works from a fresh clone: sets up .venv when it is not there."""

import gc
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"

if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
    done = subprocess.run([ROOT / "scripts" / "setup"], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    os.execv(PYTHON, [str(PYTHON), "-P", __file__, *sys.argv[1:]])

gc.disable()  # what is loaded stays until the end, which is half a second away
sys.path.insert(0, str(ROOT))
from edge.cli.issue import main  # noqa: E402

sys.exit(main())
