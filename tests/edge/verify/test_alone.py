"""A service that imports `edge.verify` gets `pki` and `cryptography`, and nothing else of the gateway."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture.source import ROOT

LISTING = """
import sys
before = set(sys.modules)
import edge.verify
new = {name for name in sys.modules.keys() - before}
known = sys.stdlib_module_names | {"cryptography", "_cffi_backend", "_openssl"}
print(sorted(name for name in new if name.partition(".")[0] not in known))
"""


def test_importing_the_verifier_imports_nothing_of_the_gateway() -> None:
    listed = subprocess.run([sys.executable, "-c", LISTING], cwd=ROOT, capture_output=True, text=True, check=True)
    found = set(eval(listed.stdout))
    assert {name for name in found if name.startswith("edge")} == {
        "edge",
        "edge.verify",
        *(
            f"edge.verify.{name}"
            for name in ("answer", "asgi", "claims", "form", "io_bundle", "io_guard", "rules", "verifier", "wsgi")
        ),
    }
    assert {name for name in found if not name.startswith("edge")} == {
        "pki",
        *(f"pki.{name}" for name in ("bundle", "errors", "issue", "profile", "spiffe", "svid")),
    }
