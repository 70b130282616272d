from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pki import io_keys
from pki.errors import AuthorityLocked, UnsafeFile
from pki.io_keys import Keyring, Passphrases
from tests.pki.founding import CHEAP

KEY = io_keys.make_ec("p256")
LOG_KEY = io_keys.make_ed25519()


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "issuing.key"
    path.write_bytes(io_keys.seal({"svc": KEY, "log": LOG_KEY}, b"secret", cost=CHEAP))
    path.chmod(0o600)
    return path


def test_a_keyring_gives_back_its_keys(ring: Path) -> None:
    opened = Keyring.open(ring, b"secret")
    assert opened.ec_key("svc").private_numbers() == KEY.private_numbers()
    assert opened.key("log").public_key() == LOG_KEY.public_key()


def test_a_key_can_be_added_under_the_same_passphrase(ring: Path) -> None:
    new = io_keys.make_ec("p384")
    ring.write_bytes(Keyring.open(ring, b"secret").with_key("gw", new))
    opened = Keyring.open(ring, b"secret")
    assert opened.ec_key("gw").private_numbers() == new.private_numbers()
    assert opened.ec_key("svc").private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize("passphrase", [b"", b"Secret", b"secret "])
def test_a_wrong_passphrase_opens_nothing(ring: Path, passphrase: bytes) -> None:
    with pytest.raises(AuthorityLocked, match="wrong passphrase"):
        Keyring.open(ring, passphrase).key("svc")


def test_a_missing_key_or_file_is_said(ring: Path, tmp_path: Path) -> None:
    with pytest.raises(AuthorityLocked, match="no key"):
        Keyring.open(ring, b"secret").key("gw")
    with pytest.raises(AuthorityLocked, match="missing"):
        Keyring.open(tmp_path / "none", b"secret")


def change(ring: Path, **changes: Any) -> None:
    document = json.loads(ring.read_bytes())
    ring.write_bytes(json.dumps({**document, **changes}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"kdf": "pbkdf2"},
        {"memory_kib": 1 << 30},
        {"memory_kib": 1},
        {"iterations": 0},
        {"iterations": 99},
        {"lanes": 99},
        {"salt": "zz"},
        {"keys": {"svc": 1}},
        {"keys": None},
        {"memory_kib": "8"},
    ],
)
def test_a_keyring_of_another_kind_is_refused_before_it_costs_anything(ring: Path, changes: dict[str, Any]) -> None:
    change(ring, **changes)
    with pytest.raises(AuthorityLocked):
        Keyring.open(ring, b"secret")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null"])
def test_what_is_no_keyring_is_refused(ring: Path, content: bytes) -> None:
    ring.write_bytes(content)
    with pytest.raises(AuthorityLocked, match="not a keyring"):
        Keyring.open(ring, b"secret")


def test_boxes_cannot_be_swapped_between_names_or_files(ring: Path) -> None:
    keys = json.loads(ring.read_bytes())["keys"]
    change(ring, keys={"svc": keys["log"], "log": keys["svc"]})
    with pytest.raises(AuthorityLocked):
        Keyring.open(ring, b"secret").key("svc")
    ring.write_bytes(io_keys.seal({"svc": KEY}, b"secret", cost=CHEAP))
    change(ring, keys=keys)
    with pytest.raises(AuthorityLocked):
        Keyring.open(ring, b"secret").key("svc")


def test_no_key_stands_in_the_clear(ring: Path) -> None:
    secret = KEY.private_numbers().private_value.to_bytes(32, "big")
    assert secret not in ring.read_bytes()
    assert secret.hex() not in ring.read_text()


def test_P55_an_open_keyring_is_refused(ring: Path) -> None:
    ring.chmod(0o640)
    with pytest.raises(UnsafeFile):
        Keyring.open(ring, b"secret")


def test_a_leaf_key_is_plain_pkcs8() -> None:
    loaded = load_pem_private_key(io_keys.private_pem(KEY), None)
    assert loaded.public_key() == KEY.public_key()


def put(path: Path, text: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "is_taken"), [(0o400, True), (0o440, True), (0o460, False), (0o444, False)])
def test_a_credential_may_show_the_mask_of_an_acl(tmp_path: Path, mode: int, is_taken: bool) -> None:
    credential = put(tmp_path / "credentials" / "edge-ca", b"from systemd", mode)
    found = Passphrases(tmp_path / "ca", environ={"CREDENTIALS_DIRECTORY": str(credential.parent)})
    if is_taken:
        assert found.find("issuing") == b"from systemd"
    else:
        with pytest.raises(UnsafeFile):
            found.find("issuing")


def test_sources_are_asked_in_order(tmp_path: Path) -> None:
    file = put(tmp_path / "file", b"from file\n")
    put(tmp_path / "credentials" / "edge-ca", b"from systemd")
    put(tmp_path / "credentials" / "edge-ca-root", b"root from systemd")
    put(tmp_path / "ca" / "issuing.passphrase", b"from state\r\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    ca = tmp_path / "ca"
    read, write = os.pipe()
    os.write(write, b"from descriptor\n")
    os.close(write)
    try:
        found = [
            Passphrases(ca, file, read, environ, given={"issuing": b"given"}).find("issuing"),
            Passphrases(ca, file, read, environ).find("issuing"),
            Passphrases(ca, None, read, environ).find("issuing"),
            Passphrases(ca, environ=environ).find("issuing"),
            Passphrases(ca).find("issuing"),
            Passphrases(ca, file, environ=environ).find("root"),
            Passphrases(ca, prompt=lambda text: f"typed for {text}").find("root"),
        ]
    finally:
        os.close(read)
    assert found == [
        b"given",
        b"from file",
        b"from descriptor",
        b"from systemd",
        b"from state",
        b"root from systemd",
        b"typed for Passphrase of the root key: ",
    ]
    assert Passphrases(ca).is_placed("issuing")
    assert not Passphrases(ca).is_placed("root")


def test_without_any_source_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuthorityLocked, match="--passphrase-file"):
        Passphrases(tmp_path).find("issuing")


@pytest.mark.parametrize("text", [b"", b"\n"])
def test_an_empty_passphrase_is_refused(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / "ca" / "issuing.passphrase", text)
    with pytest.raises(AuthorityLocked, match="empty"):
        Passphrases(tmp_path / "ca").find("issuing")
    with pytest.raises(AuthorityLocked, match="empty"):
        Passphrases(tmp_path, prompt=lambda _: "").find("issuing")


def test_an_open_missing_or_unreadable_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile):
        Passphrases(tmp_path, put(tmp_path / "open", b"x", 0o644)).find("issuing")
    with pytest.raises(AuthorityLocked, match="no such passphrase file"):
        Passphrases(tmp_path, tmp_path / "none").find("issuing")
    with pytest.raises(AuthorityLocked, match="descriptor 999"):
        Passphrases(tmp_path, descriptor=999).find("issuing")


def test_passphrases_do_not_print(tmp_path: Path) -> None:
    assert "secret" not in repr(Passphrases(tmp_path, given={"issuing": b"secret"}))


def test_random_passphrases_have_256_bits() -> None:
    first, second = io_keys.make_passphrase(), io_keys.make_passphrase()
    assert first != second
    assert len(bytes.fromhex(first.decode())) == 32


def test_a_person_is_asked_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "typed long enough"

    known = Passphrases(tmp_path, prompt=prompt).having("root")
    assert {known.find("root"), known.find("root")} == {b"typed long enough"}
    assert len(asked) == 1
