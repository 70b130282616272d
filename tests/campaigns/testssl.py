"""testssl.sh against the public listener of a whole gateway on loopback: nothing above LOW but what SECURITY.md explains."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.e2e.whole_gateway import Variant, make, routes, serving

TOOL = "testssl"
SEVERE = frozenset(("MEDIUM", "HIGH", "CRITICAL"))
EXCEPTIONS = {
    "cert_expirationStatus": "certificates of the mini-CA live for 24 h",
    "cert_notAfter": "certificates of the mini-CA live for 24 h",
    "cert_revocation": "what lives for 24 h is not revoked for the public, it ends",
}
"""Finding → why it stays; each stands in SECURITY.md."""
_WITHIN_S = 600


def campaign(directory: Path) -> str:
    """What it found, or why it did not run."""
    tool = shutil.which(TOOL)
    if tool is None:
        return "skipped: testssl.sh is not installed (on Debian: apt-get install testssl.sh)"
    make(directory, Variant())
    (directory / "policies" / "routes.yaml").write_text(routes("orders", port=9))
    report = directory / "findings.json"
    with serving(directory) as gateway:
        bundle = directory / "state" / "identity" / "public" / "bundle.pem"
        options = ["--quiet", "--nodns", "none", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1"]
        options += [f"--add-ca={bundle}", "--jsonfile", str(report), f"https://localhost:{gateway.public}/"]
        ran = subprocess.run([tool, *options], capture_output=True, text=True, timeout=_WITHIN_S)
        assert gateway.stop() == 0
    assert report.exists(), ran.stdout[-2000:]
    findings = json.loads(report.read_text())
    ids = {finding["id"] for finding in findings}
    assert {"cipher_order", "TLS1_2", "TLS1_3", "HSTS_time"} <= ids, f"it did not come to the end: {sorted(ids)}"
    unexplained = [
        f"{each['severity']} {each['id']}: {each['finding']}"
        for each in findings
        if each["severity"] in SEVERE and each["id"] not in EXCEPTIONS
    ]
    assert not unexplained, unexplained
    counts = {
        severity: sum(each["severity"] == severity for each in findings) for severity in ("OK", "INFO", "LOW", "WARN")
    }
    explained = sorted(each["id"] for each in findings if each["severity"] in SEVERE)
    return f"{len(findings)} findings {counts}, explained in SECURITY.md: {', '.join(explained)}"
