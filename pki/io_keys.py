"""Private keys: made here, kept in an envelope of our own, and the passphrases that open it.

Why not an encrypted PEM: what `cryptography` writes there is PBKDF2 with 2 048 rounds. A keyring file is JSON, one
Argon2id derivation for the file, one AES-256-GCM box per key, so that one passphrase costs one derivation and only the
key that is needed is ever in memory:

    {"version": 1, "kdf": "argon2id", "memory_kib": 65536, "iterations": 3, "lanes": 4, "salt": "<32 hex>",
     "keys": {"svc": {"nonce": "<24 hex>", "box": "<hex of AES-256-GCM(PKCS#8 DER)>"}, "gw": {…}}}

The box is bound (AAD) to version, derivation, salt and the key's name: boxes cannot be swapped between names or files.
A passphrase never comes from argv. Where one is looked for: `Passphrases`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from pki.errors import AuthorityLocked
from pki.io_files import read_private

CURVES: Mapping[str, type[ec.EllipticCurve]] = {"p256": ec.SECP256R1, "p384": ec.SECP384R1}
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_MAX_PASSPHRASE_BYTES = 1024
_PRIVATE = 0o077
_CREDENTIAL = 0o037
"""systemd keeps credentials as root's and lets the service in by an ACL, whose mask shows as the group's bits."""
_MAX_KEYRING_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess of a passphrase costs (Argon2id, RFC 9106). The default took 0.14–0.27 s where it was chosen."""

    memory_kib: int = 65_536
    iterations: int = 3
    lanes: int = 4


COST = Cost()
_COST_CEILING = Cost(memory_kib=1 << 20, iterations=16, lanes=16)  # a file must not make its reader swap


def make_ec(key_type: str) -> ec.EllipticCurvePrivateKey:
    """A fresh key; `key_type` is `p256` or `p384`."""
    return ec.generate_private_key(CURVES[key_type]())


def make_ed25519() -> ed25519.Ed25519PrivateKey:
    """A fresh key to sign a log's checkpoints."""
    return ed25519.Ed25519PrivateKey.generate()


def make_passphrase() -> bytes:
    """256 random bits as text; what an unattended authority is sealed with."""
    return secrets.token_hex(32).encode()


def private_pem(key: PrivateKey) -> bytes:
    """PKCS#8 PEM without encryption, for a leaf's own `key.pem` (0600)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def seal(keys: Mapping[str, PrivateKey], passphrase: bytes, *, cost: Cost = COST) -> bytes:
    """The bytes of a keyring file that holds `keys` under `passphrase`."""
    salt = os.urandom(16)
    box_key = AESGCM(_derive(passphrase, salt, cost))
    return _document(cost, salt, {name: _box(box_key, key, _bound_to(cost, salt, name)) for name, key in keys.items()})


class Keyring:
    """An opened keyring file: holds the derived key, decrypts one private key at a time."""

    def __init__(self, path: Path, cost: Cost, salt: bytes, boxes: Mapping[str, tuple[bytes, bytes]], box_key: AESGCM):
        self._path = path
        self._cost = cost
        self._salt = salt
        self._boxes = boxes
        self._box_key = box_key

    @classmethod
    def open(cls, path: Path, passphrase: bytes) -> Keyring:
        """Read and derive; a wrong passphrase shows at `key()`.

        Raises:
            AuthorityLocked: no such file, or not a keyring.
            UnsafeFile: others can read or write it.
        """
        try:
            document = json.loads(read_private(path, limit=_MAX_KEYRING_BYTES))
            cost = Cost(document["memory_kib"], document["iterations"], document["lanes"])
            salt = bytes.fromhex(document["salt"])
            boxes = _boxes(document)
            known = document["version"] == 1 and document["kdf"] == "argon2id" and _is_bearable(cost)
        except FileNotFoundError as error:
            raise AuthorityLocked(f"{path}: missing; the authority is not complete here") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AuthorityLocked(f"{path}: not a keyring; restore it from a backup") from error
        if not known:
            raise AuthorityLocked(f"{path}: a keyring of an unknown version or an unbearable derivation")
        return cls(path, cost, salt, boxes, AESGCM(_derive(passphrase, salt, cost)))

    def key(self, name: str) -> PrivateKey:
        """Decrypt one key.

        Raises:
            AuthorityLocked: wrong passphrase, changed file, or no key of that name.
        """
        if name not in self._boxes:
            raise AuthorityLocked(f"{self._path}: holds no key {name!r}")
        nonce, box = self._boxes[name]
        try:
            plain = self._box_key.decrypt(nonce, box, _bound_to(self._cost, self._salt, name))
        except (InvalidTag, ValueError) as error:
            raise AuthorityLocked(f"{self._path}: wrong passphrase, or the file was changed") from error
        key = load_der_private_key(plain, None)
        assert isinstance(key, PrivateKey)
        return key

    def ec_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = self.key(name)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def reopened(self, raw: bytes) -> Keyring:
        """What `with_key` gave, without deriving again."""
        return Keyring(self._path, self._cost, self._salt, _boxes(json.loads(raw)), self._box_key)

    def with_key(self, name: str, key: PrivateKey) -> bytes:
        """The bytes of this keyring with one key added or replaced, under the same passphrase."""
        box = _box(self._box_key, key, _bound_to(self._cost, self._salt, name))
        return _document(self._cost, self._salt, {**self._boxes, name: box})


@dataclass(frozen=True, slots=True)
class Passphrases:
    """Where a passphrase is looked for, first hit wins: given, file, descriptor, service manager, state directory, person.

    `$CREDENTIALS_DIRECTORY/edge-ca` (and `edge-ca-root`) is where systemd puts a LoadCredential. The state directory
    holds `issuing.passphrase` (and `root.passphrase`) when the authority was made for unattended use.
    """

    ca_directory: Path
    file: Path | None = None
    descriptor: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    prompt: Callable[[str], str] | None = None
    """Asks a person; None where nobody sits (no TTY)."""
    given: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Known already, because the authority was made a moment ago."""

    def find(self, name: str) -> bytes:
        """The passphrase named `issuing` or `root`.

        Raises:
            AuthorityLocked: nowhere one, or empty, or too long.
            UnsafeFile: its file is open to others.
        """
        if name in self.given:
            return self.given[name]
        explicit = name == "issuing"
        if explicit and self.file is not None:
            return _passphrase_file(self.file)
        if explicit and self.descriptor is not None:
            return _passphrase_descriptor(self.descriptor)
        places = self._places(name)
        for place in places:
            if os.path.lexists(place):
                return _passphrase_file(place, _PRIVATE if place.parent == self.ca_directory else _CREDENTIAL)
        if self.prompt is not None:
            return _checked(self.prompt(f"Passphrase of the {name} key: ").encode(), "the prompt")
        raise AuthorityLocked(
            f"no passphrase for the {name} key; give --passphrase-file or --passphrase-fd, "
            f"a systemd credential, or {places[-1]} (mode 0600)"
        )

    def having(self, name: str) -> Passphrases:
        """The same, with this one found now: before anybody waits for us.

        Raises: as `find`.
        """
        return replace(self, given={**self.given, name: self.find(name)})

    def is_placed(self, name: str) -> bool:
        """Does the service manager or the state directory hold one?"""
        return any(map(os.path.lexists, self._places(name)))

    def _places(self, name: str) -> list[Path]:
        places = [self.ca_directory / f"{name}.passphrase"]
        credentials = self.environ.get("CREDENTIALS_DIRECTORY")
        if credentials:
            places.insert(0, Path(credentials) / ("edge-ca" if name == "issuing" else f"edge-ca-{name}"))
        return places


def _passphrase_file(path: Path, forbidden: int = _PRIVATE) -> bytes:
    try:
        return _checked(read_private(path, limit=_MAX_PASSPHRASE_BYTES, forbidden=forbidden).rstrip(b"\r\n"), str(path))
    except FileNotFoundError as error:
        raise AuthorityLocked(f"{path}: no such passphrase file") from error


def _passphrase_descriptor(descriptor: int) -> bytes:
    if not 0 <= descriptor < 1 << 31:
        raise AuthorityLocked(f"descriptor {descriptor}: there is none of that number")
    try:
        with open(descriptor, "rb", closefd=False) as stream:
            text = stream.read(_MAX_PASSPHRASE_BYTES + 2)
    except OSError as error:
        raise AuthorityLocked(f"descriptor {descriptor}: cannot be read ({error.strerror})") from error
    return _checked(text.rstrip(b"\r\n"), f"descriptor {descriptor}")


def _checked(passphrase: bytes, place: str) -> bytes:
    if not passphrase or len(passphrase) > _MAX_PASSPHRASE_BYTES:
        raise AuthorityLocked(f"{place}: the passphrase is empty or longer than {_MAX_PASSPHRASE_BYTES} bytes")
    return passphrase


def _derive(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    return Argon2id(
        salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    ).derive(passphrase)


def _is_bearable(cost: Cost) -> bool:
    return (
        8 * cost.lanes <= cost.memory_kib <= _COST_CEILING.memory_kib
        and 1 <= cost.iterations <= _COST_CEILING.iterations
        and 1 <= cost.lanes <= _COST_CEILING.lanes
    )


def _box(box_key: AESGCM, key: PrivateKey, bound_to: bytes) -> tuple[bytes, bytes]:
    nonce = os.urandom(12)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return nonce, box_key.encrypt(nonce, plain, bound_to)


def _boxes(document: dict[str, Any]) -> dict[str, tuple[bytes, bytes]]:
    return {n: (bytes.fromhex(b["nonce"]), bytes.fromhex(b["box"])) for n, b in document["keys"].items()}


def _bound_to(cost: Cost, salt: bytes, name: str) -> bytes:
    return f"keyring-1/argon2id/{cost.memory_kib}/{cost.iterations}/{cost.lanes}/{salt.hex()}/{name}".encode()


def _document(cost: Cost, salt: bytes, boxes: Mapping[str, tuple[bytes, bytes]]) -> bytes:
    head = {"version": 1, "kdf": "argon2id", "memory_kib": cost.memory_kib, "iterations": cost.iterations}
    keys = {name: {"nonce": nonce.hex(), "box": box.hex()} for name, (nonce, box) in boxes.items()}
    return json.dumps({**head, "lanes": cost.lanes, "salt": salt.hex(), "keys": keys}, indent=1).encode() + b"\n"
