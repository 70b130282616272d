from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from pki import io_files
from pki.errors import AuthorityLocked, UnsafeFile, WouldOverwrite


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    return path


def test_a_private_file_is_read(secret: Path) -> None:
    assert io_files.read_private(secret) == b"secret"
    assert io_files.read_public(secret) == b"secret"


def test_what_is_not_there_reads_as_nothing(secret: Path) -> None:
    places = (secret, secret.with_name("no"))
    assert [io_files.if_there(io_files.read_private, place) for place in places] == [b"secret", b""]


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660, 0o602, 0o601])
def test_P55_a_file_open_to_others_is_refused_with_the_remedy(secret: Path, bits: int) -> None:
    secret.chmod(bits)
    with pytest.raises(UnsafeFile, match=f"chmod 600 {secret}"):
        io_files.read_private(secret)


def test_a_public_file_may_be_read_but_not_written_by_others(secret: Path) -> None:
    secret.chmod(0o644)
    assert io_files.read_public(secret) == b"secret"
    secret.chmod(0o664)
    with pytest.raises(UnsafeFile, match="chmod 644"):
        io_files.read_public(secret)


def test_P56_a_link_is_refused(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secret)
    for read in (io_files.read_private, io_files.read_public):
        with pytest.raises(UnsafeFile, match="symbolic link"):
            read(tmp_path / "link")


def test_what_is_no_file_or_too_large_is_refused(secret: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnsafeFile, match="not a regular file"):
            io_files.read_private(path)
        with pytest.raises(UnsafeFile, match="not a regular file"):
            io_files.read_public(path)
    with pytest.raises(UnsafeFile, match="larger than 5"):
        io_files.read_private(secret, limit=5)
    assert io_files.read_private(secret, limit=6) == b"secret"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(secret: Path) -> None:
    os.chown(secret, 12345, -1)
    with pytest.raises(UnsafeFile, match="chown"):
        io_files.read_private(secret)


def test_a_private_directory_is_made_or_accepted(tmp_path: Path) -> None:
    for _ in range(2):
        io_files.private_directory(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700


def test_an_open_or_linked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("open", "link", "file"):
        with pytest.raises(UnsafeFile):
            io_files.private_directory(tmp_path / name)


def test_a_private_file_is_written_once_and_replaced_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "key"
    io_files.write_private(path, b"1")
    with pytest.raises(WouldOverwrite):
        io_files.write_private(path, b"2")
    io_files.write_private(path, b"3", replace=True)
    assert (path.read_bytes(), mode(path), os.listdir(tmp_path)) == (b"3", 0o600, ["key"])


def test_a_link_in_the_place_is_replaced_not_followed(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secret)
    io_files.write_private(tmp_path / "link", b"new", replace=True)
    assert (secret.read_bytes(), (tmp_path / "link").is_symlink()) == (b"secret", False)


FILES = {"key.pem": (b"k", 0o600), "cert.pem": (b"c", 0o644)}


def test_a_directory_is_written_as_a_whole_and_exchanged(tmp_path: Path) -> None:
    target = tmp_path / "orders"
    io_files.replace_directory(target, FILES, replace=False)
    assert {name: mode(target / name) for name in os.listdir(target)} == {"key.pem": 0o600, "cert.pem": 0o644}
    io_files.replace_directory(target, {"cert.pem": (b"d", 0o644)}, replace=True)
    assert (os.listdir(target), (target / "cert.pem").read_bytes()) == (["cert.pem"], b"d")
    assert (os.listdir(tmp_path), mode(target)) == (["orders"], 0o700)


def test_where_names_cannot_be_exchanged_two_renames_do(tmp_path: Path) -> None:
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    (tmp_path / "stage").mkdir()
    io_files.exchange_in_two(tmp_path / "stage", tmp_path / "orders")
    assert (os.listdir(tmp_path), os.listdir(tmp_path / "orders")) == (["orders"], [])


def test_an_existing_directory_is_kept_unless_told(tmp_path: Path) -> None:
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    with pytest.raises(WouldOverwrite):
        io_files.replace_directory(tmp_path / "orders", {}, replace=False)
    assert len(os.listdir(tmp_path / "orders")) == 2


@pytest.mark.parametrize("foreign", ["notes.txt", ".profile", "orders.key.pem", "key.pem.bak"])
def test_a_directory_of_anything_else_is_never_replaced(tmp_path: Path, foreign: str) -> None:
    """`--out ~ --force`: what is replaced is deleted."""
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    (tmp_path / "orders" / foreign).touch()
    with pytest.raises(WouldOverwrite, match=f"holds '{foreign}', which would be deleted"):
        io_files.check_target(tmp_path / "orders", replace=True)
    with pytest.raises(WouldOverwrite):
        io_files.replace_directory(tmp_path / "orders", FILES, replace=True)
    assert sorted(os.listdir(tmp_path / "orders")) == sorted([*FILES, foreign])


def test_a_directory_or_link_of_a_certificate_s_name_is_no_certificate_s_file(tmp_path: Path) -> None:
    (tmp_path / "orders" / "key.pem").mkdir(parents=True)
    (tmp_path / "orders" / "cert.pem").symlink_to(tmp_path)
    with pytest.raises(WouldOverwrite, match=r"holds 'cert\.pem' and 1 more"):
        io_files.replace_directory(tmp_path / "orders", FILES, replace=True)


def test_P56_a_link_or_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeFile):
            io_files.replace_directory(tmp_path / name, FILES, replace=True)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_parent_that_others_can_change_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "shared"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(UnsafeFile, match="chmod go-w"):
        io_files.replace_directory(parent / "orders", FILES, replace=False)
    with pytest.raises(UnsafeFile, match="make it first"):
        io_files.check_target(tmp_path / "missing" / "orders", replace=False)
    parent.chmod(0o1777)
    io_files.replace_directory(parent / "orders", FILES, replace=False)


def test_what_comes_into_a_directory_while_it_is_replaced_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "orders"
    io_files.replace_directory(target, FILES, replace=False)
    monkeypatch.setattr(io_files, "sync_directory", lambda _: (target / "late").touch())
    io_files.replace_directory(target, FILES, replace=True)
    (left,) = [name for name in os.listdir(tmp_path) if name != "orders"]
    assert "late" in os.listdir(tmp_path / left)
    io_files.clear_stages(target)
    assert os.listdir(tmp_path / left) == ["late"]


def test_a_stage_of_another_spelling_is_nobodys_leftover(tmp_path: Path) -> None:
    (tmp_path / ".orders.twelve-bytes").mkdir()
    (tmp_path / ".orders.twelve-bytes" / "cert.pem").touch()
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    assert (tmp_path / ".orders.twelve-bytes" / "cert.pem").exists()


def test_what_a_crash_left_is_cleared_by_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".orders.0123456789ab").mkdir()
    (tmp_path / ".orders.keep").mkdir()
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    assert sorted(os.listdir(tmp_path)) == [".orders.keep", "orders"]


def test_a_failed_write_leaves_the_old_directory(tmp_path: Path) -> None:
    io_files.replace_directory(tmp_path / "orders", FILES, replace=False)
    with pytest.raises(OSError, match="No such file"):
        io_files.replace_directory(tmp_path / "orders", {"no/such": (b"", 0o600)}, replace=True)
    assert (len(os.listdir(tmp_path / "orders")), os.listdir(tmp_path)) == (2, ["orders"])


def test_P57_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first = io_files.lock(tmp_path / "lock", wait_s=0)
    with pytest.raises(AuthorityLocked, match="another process"):
        io_files.lock(tmp_path / "lock", wait_s=0.02)
    os.close(first)
    second = io_files.lock(tmp_path / "lock", wait_s=0)
    assert fcntl.fcntl(second, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(second)


def test_P54_a_new_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 cannot show it: what was written survives the process, and only a power cut takes what was not synced."""
    steps: list[str] = []
    sync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    io_files.write_private(tmp_path / "key", b"secret")
    assert steps == ["sync file", "rename", "sync directory"]
    steps.clear()
    io_files.replace_directory(
        tmp_path / "orders", {"key.pem": (b"k", 0o600), "cert.pem": (b"c", 0o644)}, replace=False
    )
    assert steps == ["sync file", "sync file", "sync directory", "rename", "sync directory"]
