"""`edge serve` as an operator meets it: real processes, real TLS, real signals, and a log that verifies afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.e2e import forked
from tests.e2e.load import Load
from tests.e2e.upstream import Upstream
from tests.e2e.whole_gateway import (
    CHILDREN,
    EDGE_YAML,
    Gateway,
    eventually,
    records,
    requests_in_log,
    routes,
    run,
    serving,
)


def test_starts_serves_and_stops_with_a_sealed_log(directory: Path) -> None:
    with serving(directory, forked.cold) as gateway:  # as an operator starts it: a new interpreter
        assert gateway.get("/orders/7") == (200, "ok")
        assert gateway.get("/nothing") == (404, "no-route")
        assert [gateway.ask_admin(path)[0] for path in ("/healthz", "/startupz", "/readyz")] == [200, 200, 200]
        assert set(gateway.children()) == set(CHILDREN)
        session = {os.getsid(pid) for pid in gateway.children().values()}
        assert session == {gateway.process.pid}
        assert gateway.stop() == 0
    assert records(directory) >= 4  # start, two requests, stop
    assert sorted(path.name for path in (directory / "state" / "run").iterdir()) == ["lock", "rings", "store.log"]
    assert list((directory / "state" / "run" / "rings").iterdir()) == []


def test_signal_to_everybody_at_once_lets_requests_in_flight_finish(
    gateway: Gateway, directory: Path, service: Upstream
) -> None:
    service.let.clear()
    answers: list[tuple[int, str]] = []
    caller = threading.Thread(target=lambda: answers.append(gateway.get("/orders/7", timeout_s=10)))
    caller.start()
    assert service.asked.acquire(timeout=15)
    os.killpg(gateway.process.pid, signal.SIGTERM)
    eventually(lambda: refuses(gateway.public), 15)
    assert gateway.ask_admin("/readyz") == (503, {"ok": False, "failing": ["draining"]})
    service.let.set()
    caller.join(10)
    assert answers == [(200, "ok")]
    assert gateway.ended() == 0
    assert records(directory) >= 3
    assert not any("another" in line for line in gateway.lines)  # nobody was replaced on the way down


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("name", ["edge-ca", "edge-watcher"])  # the others die in every cell of the matrix
def test_killed_child_is_replaced_under_load_and_no_answer_is_missing_in_the_log(
    gateway: Gateway, directory: Path, name: str
) -> None:
    load = Load(gateway)
    eventually(lambda: load.count(200) > 20, 15)
    before = gateway.children()[name]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: gateway.children().get(name) not in (None, before), 15)
    served = load.count(200)
    eventually(lambda: load.count(200) > served + 20, 15)
    load.end()
    assert gateway.stop() == 0
    assert {call.status for call in load.calls} <= {200, 503}
    assert all(b"not-recordable" in call.body for call in load.calls if call.status == 503)
    records(directory)
    leaves = {leaf["event.id"]: leaf for leaf in requests_in_log(directory)}
    for call in load.calls:
        if call.status == 200:
            assert leaves[call.decision]["http.response.status_code"] == 200
    # What was admitted and not answered: at most what was in flight when a process died, each in the log as unknown.
    unanswered = leaves.keys() - {call.decision for call in load.calls}
    assert len(unanswered) <= len(load.failures) + 4


def test_killed_supervisor_leaves_no_child_and_the_next_start_recovers(gateway: Gateway, directory: Path) -> None:
    assert gateway.get("/orders/7") == (200, "ok")
    pids = gateway.children().values()
    gateway.process.kill()
    gateway.ended()
    eventually(lambda: all(is_gone(pid) for pid in pids), 15)
    again = Gateway(directory)
    assert again.get("/orders/7") == (200, "ok")
    assert again.stop() == 0
    assert records(directory) >= 4


def swap(file: Path, text: str) -> None:
    """As editors write: never is there half of it."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").replace(file)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_edit_is_served_within_a_second_and_a_broken_one_changes_nothing(
    gateway: Gateway, directory: Path, service: Upstream
) -> None:
    file = directory / "policies" / "routes.yaml"
    took_s = []
    for _ in range(2):  # a machine that is busy with something else may be late once
        swap(file, routes("orders", port=service.port))
        eventually(lambda: gateway.get("/new/1") == (404, "no-route"), 15)
        swap(file, routes("orders", "new", port=service.port))
        took_s.append(eventually(lambda: gateway.get("/new/1") == (200, "ok"), 15))
    assert min(took_s) <= 1
    swap(file, routes("orders", "new", port=service.port).replace("timeout_s: 10", 'timeout_s: "10s"', 1))
    assert re.match(r"policies/routes\.yaml:4:\d+: ", gateway.line(r"^policies/routes\.yaml:"))
    assert gateway.get("/new/1") == (200, "ok")
    refused = run("reload", "-c", directory / "edge.yaml")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    swap(file, routes("orders", port=service.port))
    reloaded = run("reload", "--json", "-c", directory / "edge.yaml")
    assert reloaded.returncode == 0
    assert json.loads(reloaded.stdout)["ok"]
    assert gateway.get("/new/1") == (404, "no-route")


def test_hang_up_reloads(gateway: Gateway, directory: Path, service: Upstream) -> None:
    (directory / "policies" / "routes.yaml").write_text(routes("orders", "new", port=service.port))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.line("reloaded")
    assert gateway.get("/new/1") == (200, "ok")


def test_connection_stays_open_over_a_reload(gateway: Gateway, directory: Path, service: Upstream) -> None:
    connection = gateway.connect()
    connection.request("GET", "/orders/1")
    assert connection.getresponse().read() == b"ok"
    held = connection.sock
    (directory / "edge.yaml").write_text(EDGE_YAML.replace("[localhost]", "[localhost, edge.internal]"))
    gateway.line("reloaded")
    connection.request("GET", "/orders/2")
    assert connection.getresponse().read() == b"ok"
    assert connection.sock is held
    connection.close()


def test_second_gateway_on_the_same_state_is_refused(gateway: Gateway, directory: Path) -> None:
    second = run("serve", "-c", directory / "edge.yaml")
    assert second.returncode == 4
    assert f"another `edge serve` (pid {gateway.process.pid})" in second.stderr


def test_taken_port_is_refused(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        (directory / "edge.yaml").write_text(EDGE_YAML.replace("127.0.0.1:0", f"127.0.0.1:{other.getsockname()[1]}", 1))
        refused = run("serve", "-c", directory / "edge.yaml")
    assert refused.returncode == 4
    assert "listeners.public: cannot bind" in refused.stderr


def test_broken_files_are_all_told_and_nothing_starts(directory: Path) -> None:
    (directory / "policies" / "routes.yaml").write_text("routes:\n  - {name: a}\n  - {name: b}\n")
    refused = run("serve", "-c", directory / "edge.yaml")
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    assert len(lines) >= 2
    assert all(re.match(r"policies/\w+\.yaml:\d+:\d+: [a-z-]+: ", line) for line in lines)


def test_reload_without_a_gateway_says_so(directory: Path) -> None:
    refused = run("reload", "-c", directory / "edge.yaml")
    assert refused.returncode == 4
    assert "edge serve" in refused.stderr


def test_state_that_others_may_read_is_refused(directory: Path) -> None:
    (directory / "state").chmod(0o755)
    refused = run("serve", "-c", directory / "edge.yaml")
    assert refused.returncode == 4
    assert "chmod" in refused.stderr


def test_the_service_manager_hears_of_every_change(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"\0edge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + address[1:])
        gateway = Gateway(directory)
        gateway.process.send_signal(signal.SIGHUP)
        heard = [manager.recv(4096).split(b"\n")[0] for _ in range(3)]
        assert gateway.stop() == 0
        heard.append(manager.recv(4096).split(b"\n")[0])
    assert heard == [b"READY=1", b"RELOADING=1", b"READY=1", b"STOPPING=1"]
