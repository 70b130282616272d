"""Runs the demo: see the package's docstring. Exit 0 when every promise was kept."""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
import time
from io import TextIOWrapper
from pathlib import Path

from examples.demo import access, change, impostors, loss, protocols, together
from examples.demo.evidence import Evidence
from examples.demo.mesh import CLIENTS, Mesh
from examples.demo.promise import Broken, Promises
from examples.demo.stage import EDGE, Stage


def main() -> int:
    """Set up, show, take down."""
    arguments = _arguments()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # the environment may be empty
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts what is in its background with the first ignored
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="edge-demo-"))
    try:
        with Stage(directory, verbose=arguments.verbose) as stage:
            promises = Promises()
            _play(promises, stage, keep=arguments.keep)
            if promises.broken:
                print(stage.last_words(), file=sys.stderr)
    except Broken as exc:
        print(f"✗ the set-up failed: {exc}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything is ended", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{promises.kept} promises kept, {promises.broken} broken, in {time.monotonic() - began:.1f} s")
    return 1 if promises.broken else 0


def _play(promises: Promises, stage: Stage, *, keep: bool) -> None:
    began = time.monotonic()
    print("Setting up: CA, certificates, an OAuth2 issuer, two services over mTLS, a store, the gateway …", flush=True)
    mesh = Mesh(stage)
    print(f"✓ up, on https://localhost:{mesh.caller.port}  ({time.monotonic() - began:.1f} s)")
    evidence = Evidence(mesh)
    access.show(promises, mesh)
    evidence.keep_early_copy()
    change.show(promises, mesh)
    impostors.show(promises, mesh)
    protocols.show(promises, mesh)
    together.show(promises, mesh)
    loss.show(promises, mesh)
    evidence.show(promises)
    if keep:
        _print_commands(mesh)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()
    evidence.sealed(promises)


def _print_commands(mesh: Mesh) -> None:
    """Lines to paste into a shell while it runs."""
    base = f"https://localhost:{mesh.caller.port}"
    anchors, issuer_anchors, config = (shlex.quote(str(p)) for p in (mesh.anchors, mesh.issuer_anchors, mesh.config))
    read = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
    curl = f"curl -sS --cacert {anchors} -i"
    print(
        f"\nIt is still running; Ctrl-C ends it. The policies are in {mesh.policies}, edit them.\n\n"
        f"TOKEN=$(curl -s --cacert {issuer_anchors} -u alice:{CLIENTS['alice']['secret']}"
        f" -d grant_type=client_credentials {mesh.issuer_url}/token | {read})\n"
        f'{curl} -H "Authorization: Bearer $TOKEN" {base}/orders/7\n'
        f"{curl} {base}/orders/7                      # 401\n"
        f'{curl} -H "Authorization: Bearer $TOKEN" {base}/billing/7   # 403: alice has no billing:read\n'
        f"{EDGE} audit tail -c {config} -n 5\n"
        f"{EDGE} audit verify -c {config}",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="A whole edge, and each of its promises tried.")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C, and print curl lines")
    parser.add_argument("--verbose", action="store_true", help="show every command and request")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
