"""What is shipped for deployment: the commands of docs/deploy.md, the unit, the image and the Compose file."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from valkey import Valkey

from tests.e2e.limit_server import VALKEY, answers_ping, wait_until
from tests.e2e.whole_gateway import Gateway, Variant, copied, make, run

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "edge.service"
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()
RUN_BLOCKS = re.findall(r"^```sh run\n(.*?)^```", DOCUMENT, re.M | re.S)


def tool(name: str) -> str:
    """A linter, from the development environment or the machine; without it the test is skipped by name."""
    beside = Path(sys.executable).parent / name
    found: str | None = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return str(found)


def checked(*command: str | Path, **options: Any) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240, **options)
    said: str = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


# -- the document ------------------------------------------------------------------------------------


def test_the_commands_of_the_document_run(tmp_path: Path) -> None:
    tool("systemd-analyze")
    for name in ("scripts", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    said = checked(
        "bash", "-euo", "pipefail", "-c", "\n".join(RUN_BLOCKS), cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL
    )
    assert "joined as spiffe://mesh.internal/gw/edge-b" in said
    assert "still fresh" in said
    assert "renewed spiffe://mesh.internal/gw/edge-b" in said
    assert said.count(": valid, bundle ") == 2
    assert len(RUN_BLOCKS) == 5


def test_what_the_document_names_is_there() -> None:
    named = set(re.findall(r"(?:deploy|scripts)/[A-Za-z./-]+[a-z]", DOCUMENT))
    assert {"deploy/Containerfile", "deploy/compose.yaml", "scripts/issue-cert.py"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []


# -- the unit ----------------------------------------------------------------------------------------


def test_the_unit_is_valid_and_confined(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    here = UNIT.read_text().replace("/opt/edge/", f"{ROOT}/").replace(f"{ROOT}/.venv/bin/edge", "/bin/true")
    (tmp_path / "edge.service").write_text(here)
    shutil.copytree(DEPLOY / "systemd" / "edge.service.d", tmp_path / "edge.service.d")
    assert checked(analyze, "verify", "--man=no", tmp_path / "edge.service") == ""
    checked(analyze, "security", "--offline=yes", "--threshold=25", UNIT)


def test_the_unit_runs_commands_that_exist() -> None:
    commands = re.findall(r"^Exec\w+=/opt/edge/\.venv/bin/edge (\w+) (.*)$", UNIT.read_text(), re.M)
    assert [name for name, _ in commands] == ["serve", "reload"]
    for name, arguments in commands:
        said = run(name, "--help")
        assert said.returncode == 0
        assert [flag for flag in re.findall(r"(?<!\w)--?[a-z-]+", arguments) if flag not in said.stdout] == []


# -- the image ---------------------------------------------------------------------------------------


def test_the_image_takes_only_what_exists_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.M) == ["65532:65532"]
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    allowed = {line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for source in (name.rstrip("/") for names in copied for name in names):
        assert (ROOT / source).exists(), source
        assert source in allowed, source


def test_the_image_passes_its_linter() -> None:
    assert checked(tool("hadolint"), DEPLOY / "Containerfile") == ""


def test_the_health_check_of_the_image_tells_ready_from_not(tmp_path: Path) -> None:
    found = re.search(r"CMD (\[.*/readyz.*\])$", (DEPLOY / "Containerfile").read_text(), re.M)
    assert found is not None
    _, *command = json.loads(found[1])
    ast.parse(command[-1])
    gateway = Gateway(copied(make(tmp_path / "template", Variant()), tmp_path / "edge", port=1))
    command[-1] = command[-1].replace("9901", str(gateway.admin))
    probe = [sys.executable, *command]
    assert subprocess.run(probe, timeout=10, check=False).returncode == 0
    assert gateway.stop() == 0
    assert subprocess.run(probe, timeout=10, check=False, stderr=subprocess.DEVNULL).returncode != 0


# -- compose -----------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return document


def test_every_container_is_confined() -> None:
    services = compose()["services"]
    assert set(services) == {"gateway-a", "gateway-b", "store"}
    for service in services.values():
        assert service["user"].startswith("${EDGE_UID:?")
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
    assert services["store"]["network_mode"] == "none"
    for name in ("gateway-a", "gateway-b"):
        config, *_ = services[name]["volumes"]
        assert config.endswith(":/etc/edge:ro")
        assert services[name]["init"]


def test_compose_passes_its_linter() -> None:
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_the_store_of_compose_starts_as_it_is_written(tmp_path: Path) -> None:
    _, *arguments = compose()["services"]["store"]["command"]
    name = "/run/store/valkey.sock"
    assert compose()["services"]["gateway-a"]["environment"]["EDGE_STORE"] == f"unix://{name}"
    arguments = [argument.replace(name, "s").replace("--dir /tmp", f"--dir {tmp_path}") for argument in arguments]
    process = subprocess.Popen([VALKEY, *arguments], stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        with Valkey(unix_socket_path=os.path.relpath(tmp_path / "s")) as client:
            wait_until(lambda: (tmp_path / "s").exists() and answers_ping(client))
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    finally:
        process.kill()
        process.wait()


def test_the_scripts_pass_their_linter() -> None:
    candidates = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
    shell = [path for path in candidates if path.read_bytes().startswith(b"#!/usr/bin/env bash\n")]
    assert len(shell) >= 5
    assert checked(tool("shellcheck"), *shell) == ""
