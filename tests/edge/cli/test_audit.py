from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.cli.audit import app
from pki.tlog import note
from pki.tlog.io_log import LogWriter, head_copy_of

SIGNER = note.Signer("home.example/edge", b"\x01" * 32)


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


def _grow(directory: Path, entries: list[bytes]) -> None:
    writer = LogWriter.open(directory, origin=SIGNER.verifier.name, signer=SIGNER, head_copy=head_copy_of(directory))
    writer.append(entries)
    writer.publish()
    writer.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    _grow(tmp_path / "log", [b'{"event.action":"start","n":%d}' % number for number in range(30)])
    return tmp_path / "log"


def test_good_log_exits_0_and_says_where_the_key_came_from(log: Path) -> None:
    code, out, err = _run("verify", log)
    assert (code, out) == (0, "ok: 30 entries of home.example/edge are as they were logged\n")
    assert "--key FILE" in err


def test_a_log_that_was_not_begun_is_named_and_so_is_what_begins_it(tmp_path: Path) -> None:
    code, out, err = _run("verify", tmp_path / "log")
    assert (code, out) == (4, "")
    assert err.startswith(f"{tmp_path}/log: No such file or directory; a gateway begins its log when it first serves")


def test_report_as_json(log: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SIGNER.verifier}\n")
    code, out, err = _run("verify", log, "--key", tmp_path / "key", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "origin": "home.example/edge",
        "ok": True,
        "size": 30,
        "unpublished": 0,
        "first_bad_index": None,
        "kind": None,
        "detail": "",
    }


def test_bad_log_exits_1_and_names_the_first_bad_index(log: Path) -> None:
    path = log / "tile/entries/000.p/30"
    path.write_bytes(path.read_bytes().replace(b'"n":7', b'"n":9', 1))
    code, out, _ = _run("verify", log)
    assert code == 1
    assert out.startswith("FAILED: edit: first bad index 7: ")


def test_remembered_checkpoint_is_taken_from_the_second_place_or_from_a_file(log: Path, tmp_path: Path) -> None:
    (tmp_path / "newer").write_bytes(b"")
    _grow(tmp_path / "other", [b"x"] * 31)
    for place in (head_copy_of(log), tmp_path / "newer"):
        place.write_bytes((tmp_path / "other/checkpoint").read_bytes())
    assert json.loads(_run("verify", log, "--json")[1])["kind"] == "rollback"
    head_copy_of(log).unlink()
    assert _run("verify", log)[0] == 0
    assert json.loads(_run("verify", log, "--checkpoint", tmp_path / "newer", "--json")[1])["first_bad_index"] == 30


def test_remembered_checkpoint_of_another_key_is_a_finding(log: Path, tmp_path: Path) -> None:
    (tmp_path / "forged").write_bytes(b"nonsense")
    code, out, _ = _run("verify", log, "--checkpoint", tmp_path / "forged")
    assert (code, out[:20]) == (1, "FAILED: checkpoint: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "nowhere"),
        ("tail", "nowhere"),
        ("verify", "LOG", "--key", "nowhere"),
        ("verify", "LOG", "--key", "LOG/checkpoint"),
        ("verify", "LOG", "--checkpoint", "nowhere"),
    ],
)
def test_what_is_not_there_exits_4_with_a_remedy(log: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = _run(*(each.replace("LOG", str(log)) for each in arguments))
    assert (code, out) == (4, "")
    assert ";" in err


def test_tail_prints_the_last_entries_oldest_first(log: Path) -> None:
    assert _run("tail", log, "-n", 2)[1] == "      28  start\n      29  start\n"
    lines = _run("tail", log, "-n", 2, "--json")[1].splitlines()
    assert [json.loads(line)["record"]["n"] for line in lines] == [28, 29]


def test_tail_of_an_empty_log_prints_nothing(tmp_path: Path) -> None:
    _grow(tmp_path / "log", [])
    assert _run("tail", tmp_path / "log") == (0, "", "")


@pytest.mark.parametrize(
    ("text", "place"), [("state: elsewhere\n", "elsewhere/log"), ("trust_domain: a\n", "state/log")]
)
def test_log_is_found_through_edge_yaml(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "edge.yaml").write_text(text)
    (tmp_path / place).parent.mkdir()
    _grow(tmp_path / place, [b"{}"] * 3)
    assert _run("verify", "-c", tmp_path / "edge.yaml")[1].startswith("ok: 3 entries")
    assert len(_run("tail", "-c", tmp_path / "edge.yaml")[1].splitlines()) == 3


def test_log_that_is_being_published_is_not_called_rolled_back(log: Path) -> None:
    before = (log / "checkpoint").read_bytes()
    _grow(log, [b'{"event.action":"more"}'])
    published = (log / "checkpoint").read_bytes()
    (log / "checkpoint").write_bytes(before)  # as the writer leaves it between the head copy and the checkpoint
    (log / "next").write_bytes(published)
    finish = threading.Timer(0.2, (log / "next").rename, [log / "checkpoint"])
    finish.start()
    code, out, _ = _run("verify", log)
    finish.join()
    assert (code, out) == (0, "ok: 31 entries of home.example/edge are as they were logged\n")
