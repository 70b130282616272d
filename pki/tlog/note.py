"""Signed notes (C2SP signed-note): a text, and lines that say who vouches for it.

    example.com/log                                       ← the text, any lines, ends in a newline
    15
    rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=
                                                          ← a blank line, the last one of the note
    — example.com/log M9e0luh4jTG+UMBq…                   ← em dash, key name, base64(key id ‖ signature)

Keys are Ed25519 only (signature type 0x01): one algorithm, chosen by the verifier's key and never by the note. Keys are
written as `name+hex key id+base64(0x01 ‖ key)`, private ones with `PRIVATE+KEY+` before it, as Go's sumdb does.

Every parser takes one spelling: what it read is printed again and must come out equal, so that two notes with one
meaning are one string of bytes. Signatures of unknown keys are ignored; a wrong signature of a known key, or two lines
of one known key, refuse the whole note.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pki.tlog.errors import NoteMalformed, NoteUnverified

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 100
_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_NAME = re.compile(r"[^\s+\x00-\x1f]+")
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_KEY = re.compile(r"(PRIVATE\+KEY\+)?([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key that may vouch for notes; `str()` gives its one written form."""

    name: str
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises: NoteMalformed — not an Ed25519 verifier key, or its key id does not belong to it."""
        name, raw_key = _parse_key(text, private=False)
        return cls(name, raw_key)

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart; an identifier, not a proof."""
        return _key_id(self.name, self.public_key)

    def check(self, text: bytes, signature: bytes) -> None:
        """Raises: NoteUnverified — the signature is not this key's over `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError) as exc:
            raise NoteUnverified(f"signature of {self.name}+{self.key_id.hex()} is wrong") from exc

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(_ED25519 + self.public_key).decode()}"


class Signer:
    """A private key that vouches for notes. Its `repr` hides the key; `encoded()` gives it away on purpose."""

    __slots__ = ("_key", "_seed", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        """`seed`: the 32 bytes of an Ed25519 private key (RFC 8032 §5.1.5)."""
        _check_name(name)
        if len(seed) != 32:
            raise NoteMalformed("an Ed25519 private key has 32 bytes")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Raises: NoteMalformed — not an Ed25519 signer key, or its key id does not belong to it."""
        name, seed = _parse_key(text, private=True)
        signer = cls(name, seed)
        if signer.encoded() != text:
            raise NoteMalformed("signer key: the key id is not this key's")
        return signer

    def encoded(self) -> str:
        """The written form of the private key. A secret."""
        key = b64encode(_ED25519 + self._seed).decode()
        return f"PRIVATE+KEY+{self.verifier.name}+{self.verifier.key_id.hex()}+{key}"

    def line(self, text: bytes) -> bytes:
        """The signature line for `text`."""
        signature = b64encode(self.verifier.key_id + self._key.sign(text)).decode()
        return f"— {self.verifier.name} {signature}\n".encode()

    def __repr__(self) -> str:
        return f"Signer({str(self.verifier)!r})"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not yet checked against any key."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text for which at least one known key vouches. Only `verify` makes one."""

    text: bytes
    verified_by: tuple[Verifier, ...]
    unverified: tuple[Signature, ...]


def sign(text: bytes, *signers: Signer) -> bytes:
    """The signed note of `text`.

    Raises:
        NoteMalformed: `text` is not UTF-8, holds control characters, or does not end in a newline.
    """
    _check_text(text)
    return text + b"\n" + b"".join(signer.line(text) for signer in signers)


def verify(raw: bytes, verifiers: Sequence[Verifier]) -> Note:
    """Open a signed note with the keys that are trusted.

    Raises:
        NoteMalformed: not a note in its one spelling.
        NoteUnverified: no signature of a known key, or a wrong one.
    """
    text, signatures = split(raw)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified: dict[Verifier, None] = {}
    unverified = []
    for found in signatures:
        verifier = known.get((found.name, found.key_id))
        if verifier is None:
            unverified.append(found)
            continue
        if verifier in verified:
            raise NoteMalformed(f"two signatures of {verifier.name}")
        verifier.check(text, found.signature)
        verified[verifier] = None
    if not verified:
        raise NoteUnverified("no known key signed the note")
    return Note(text, tuple(verified), tuple(unverified))


def split(raw: bytes) -> tuple[bytes, tuple[Signature, ...]]:
    """Text and signatures of a note, both **unverified**.

    Raises:
        NoteMalformed: not a note in its one spelling.
    """
    if len(raw) > MAX_NOTE_BYTES:
        raise NoteMalformed("note is too long")
    middle = raw.rfind(b"\n\n")
    if middle < 0:
        raise NoteMalformed("note has no signatures")
    text, block = raw[: middle + 1], raw[middle + 2 :]
    _check_text(text)
    lines = block.split(b"\n")
    if lines.pop() != b"" or not lines or len(lines) > MAX_SIGNATURES:
        raise NoteMalformed("note does not end in 1 to 100 signature lines")
    return text, tuple(map(_parse_line, lines))


def _parse_line(line: bytes) -> Signature:
    try:
        dash, name, encoded = line.decode().split(" ")
    except ValueError as exc:  # also UnicodeDecodeError
        raise NoteMalformed("not a signature line") from exc
    if dash != "—":
        raise NoteMalformed("not a signature line")
    _check_name(name)
    signature = strict_base64(encoded)
    if len(signature) <= _KEY_ID_BYTES:
        raise NoteMalformed("signature is too short")
    return Signature(name, signature[:_KEY_ID_BYTES], signature[_KEY_ID_BYTES:])


def strict_base64(encoded: str) -> bytes:
    """RFC 4648 §4 with padding, one spelling per value (no stray trailing bits).

    Raises:
        NoteMalformed: anything else.
    """
    try:
        value = b64decode(encoded, validate=True)
    except (Error, ValueError) as exc:
        raise NoteMalformed("not base64") from exc
    if b64encode(value).decode() != encoded:
        raise NoteMalformed("base64 in a second spelling")
    return value


def _parse_key(text: str, *, private: bool) -> tuple[str, bytes]:
    found = _KEY.fullmatch(text)
    if found is None or (found[1] is not None) != private:
        raise NoteMalformed("not a note key")
    name, key_id, key = found[2], found[3], strict_base64(found[4])
    _check_name(name)
    if len(key) != 33 or key[:1] != _ED25519:
        raise NoteMalformed("not an Ed25519 note key")
    if not private and _key_id(name, key[1:]).hex() != key_id:
        raise NoteMalformed("verifier key: the key id is not this key's")
    return name, key[1:]


def _key_id(name: str, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_KEY_ID_BYTES]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise NoteMalformed("a key name is not empty and has no space, plus or control character")


def _check_text(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        raise NoteMalformed("note is not UTF-8") from exc
    if not text.endswith(b"\n") or _CONTROL.search(text):
        raise NoteMalformed("note text holds a control character or does not end in a newline")
