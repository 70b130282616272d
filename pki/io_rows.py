"""The rows of an authority's record, in SQLite: issuances, enrolment tokens, counters, who has seen which bundle.

Every method is one transaction, and a transaction that was committed survives a power cut. The one that matters most:
`intend` spends an enrolment token and writes the intent together, so that however many ask with one token at once and
whenever the power fails, one issuance at most has it (attack P31).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pki.errors import IssueRefused, UnsafeFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS issuance (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    serial TEXT NOT NULL,
    issuer_sha256 TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    names TEXT NOT NULL,
    spki_sha256 TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    requester TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intent', 'issued', 'revoked')),
    reason TEXT NOT NULL DEFAULT '',
    revoked_at INTEGER,
    certificate BLOB,
    outcome_index INTEGER,
    UNIQUE (serial)
) STRICT;
CREATE INDEX IF NOT EXISTS issuance_key ON issuance (spki_sha256);
CREATE INDEX IF NOT EXISTS issuance_identity ON issuance (role, name, requested_at);
CREATE INDEX IF NOT EXISTS issuance_end ON issuance (not_after);
CREATE INDEX IF NOT EXISTS issuance_state ON issuance (state) WHERE state = 'intent' OR outcome_index IS NULL;
CREATE TABLE IF NOT EXISTS token (
    sha256 TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    dns TEXT NOT NULL,
    life_s INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    spent_at INTEGER,
    issuance INTEGER REFERENCES issuance (id)
) STRICT;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS seen (
    role TEXT NOT NULL, name TEXT NOT NULL, bundle INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (role, name)
) STRICT;
CREATE TABLE IF NOT EXISTS shown (
    role TEXT NOT NULL, name TEXT NOT NULL, issuance INTEGER NOT NULL, PRIMARY KEY (role, name)
) STRICT;
"""

_COLUMNS = (
    "id, serial, issuer_sha256, role, name, names, spki_sha256, not_after, requester, requested_at, state, reason,"
    " revoked_at, certificate"
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be signed."""

    serial: int
    issuer_sha256: str
    """Hex digest of the issuer's public key (SubjectPublicKeyInfo)."""
    role: str
    name: str
    names: list[str]
    spki_sha256: str
    not_after: datetime
    requester: str


@dataclass(frozen=True, slots=True)
class Issuance:
    """One row. Moments are seconds since the epoch."""

    number: int
    serial: int
    issuer_sha256: str
    role: str
    name: str
    names: tuple[str, ...]
    spki_sha256: str
    not_after: int
    requester: str
    requested_at: int
    state: str
    """`intent`, `issued` or `revoked`."""
    reason: str
    revoked_at: int | None
    certificate: bytes | None
    """DER; None when it was never signed, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a one-time token allows, once."""

    sha256: str
    role: str
    name: str
    dns: tuple[str, ...]
    life_s: int
    """Of the certificate."""
    expires_at: int


class Rows:
    """The tables of one authority. Raises sqlite3.Error; `io_record` says what that means."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._rows = connection

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Open or create.

        Raises:
            UnsafeFile: the file is open to others.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        facts = os.fstat(descriptor)
        os.close(descriptor)
        if facts.st_mode & 0o077 or facts.st_uid not in {os.geteuid(), 0}:
            raise UnsafeFile(f"{path}: open to others; run: chmod 600 {path}")
        with ExitStack() as held:
            rows = held.enter_context(closing(sqlite3.connect(path, timeout=5, isolation_level="IMMEDIATE")))
            # EXTRA also syncs the directory after the rollback journal is deleted: a committed row survives a power cut.
            rows.execute("PRAGMA synchronous = EXTRA")
            if not rows.execute("SELECT 1 FROM sqlite_master WHERE name = 'shown'").fetchone():
                rows.executescript(_SCHEMA)
            held.pop_all()
        return cls(rows)

    def close(self) -> None:
        self._rows.close()

    def intend(self, intent: Intent, now: datetime, token_sha256: str | None) -> int:
        """Write the intent, and spend the token with it; → the issuance's number.

        Raises:
            IssueRefused: the token is not known, spent or expired; nothing was written.
        """
        now_s = int(now.timestamp())
        values = (
            f"{intent.serial:x}",
            intent.issuer_sha256,
            intent.role,
            intent.name,
            json.dumps(intent.names),
            intent.spki_sha256,
            int(intent.not_after.timestamp()),
            intent.requester,
            now_s,
        )
        with self._rows:
            number = self._rows.execute(
                "INSERT INTO issuance (serial, issuer_sha256, role, name, names, spki_sha256, not_after, requester,"
                " requested_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent')",
                values,
            ).lastrowid
            assert number is not None
            if token_sha256 is not None:
                spent = self._rows.execute(
                    "UPDATE token SET spent_at = ?, issuance = ?"
                    " WHERE sha256 = ? AND role = ? AND name = ? AND spent_at IS NULL AND expires_at > ?",
                    (now_s, number, token_sha256, intent.role, intent.name, now_s),
                )
                if spent.rowcount != 1:
                    raise IssueRefused("token", "the token is not known, was used before, or has expired")
        return number

    def issued(self, number: int, certificate: bytes) -> None:
        with self._rows:
            self._rows.execute(
                "UPDATE issuance SET state = 'issued', certificate = ? WHERE id = ?", (certificate, number)
            )

    def revoked(self, number: int, reason: str, at: datetime) -> None:
        """Its place in the log is not known yet (see `place`)."""
        with self._rows:
            self._rows.execute(
                "UPDATE issuance SET state = 'revoked', reason = ?, revoked_at = coalesce(revoked_at, ?),"
                " outcome_index = NULL WHERE id = ?",
                (reason, int(at.timestamp()), number),
            )

    def place(self, number: int, index: int) -> None:
        """Where the outcome stands in the log; an issuance without that was not handed out."""
        with self._rows:
            self._rows.execute("UPDATE issuance SET outcome_index = ? WHERE id = ?", (index, number))

    def interrupted(self) -> list[Issuance]:
        """Issuances that a crash left without an outcome, or with one that is not in the log."""
        return self._select("state = 'intent' OR outcome_index IS NULL", ())

    def latest_request(self) -> int | None:
        found = self._rows.execute("SELECT max(requested_at) FROM issuance").fetchone()[0]
        return None if found is None else int(found)

    def key_holders(self, spki_sha256: str) -> list[Issuance]:
        """Everything a public key was certified for."""
        return self._select("spki_sha256 = ?", (spki_sha256,))

    def find(self, serial: int) -> Issuance | None:
        found = self._select("serial = ?", (f"{serial:x}",))
        return found[0] if found else None

    def unexpired(self, now: datetime, role: str | None = None, name: str | None = None) -> list[Issuance]:
        """What was signed, or may have been, and has not ended; of one identity, one role, or all. Oldest first."""
        return self._select(
            "not_after > ? AND (? IS NULL OR role = ?) AND (? IS NULL OR name = ?)",
            (int(now.timestamp()), role, role, name, name),
        )

    def placed(self, now: datetime) -> list[tuple[bytes, int]]:
        """(certificate, index of its outcome in the log) of each leaf that was handed out, stands, and has not ended."""
        found = self._rows.execute(
            "SELECT certificate, outcome_index FROM issuance WHERE state = 'issued' AND not_after > ? AND role <> 'root'"
            " AND certificate IS NOT NULL AND outcome_index IS NOT NULL",
            (int(now.timestamp()),),
        )
        return [(bytes(certificate), int(index)) for certificate, index in found]

    def requests_since(self, role: str, name: str, since: datetime, requester: str) -> int:
        """How often a requester obtained something for an identity."""
        found = self._rows.execute(
            "SELECT count(*) FROM issuance WHERE role = ? AND name = ? AND requested_at >= ? AND requester = ?",
            (role, name, int(since.timestamp()), requester),
        ).fetchone()
        return int(found[0])

    def _select(self, where: str, values: Sequence[object]) -> list[Issuance]:
        query = f"SELECT {_COLUMNS} FROM issuance WHERE {where} ORDER BY id"  # noqa: S608 — `where` is ours
        found = self._rows.execute(query, values).fetchall()
        return [_issuance(*row) for row in found]

    def add_token(self, token: Token, now: datetime) -> None:
        """Remember a token; those that ended a day ago are forgotten."""
        with self._rows:
            self._rows.execute("DELETE FROM token WHERE expires_at < ?", (int(now.timestamp()) - 86_400,))
            self._rows.execute(
                "INSERT INTO token (sha256, role, name, dns, life_s, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                (token.sha256, token.role, token.name, json.dumps(token.dns), token.life_s, token.expires_at),
            )

    def token(self, sha256: str) -> Token | None:
        """A token that is remembered, spent or not."""
        row = self._rows.execute(
            "SELECT sha256, role, name, dns, life_s, expires_at FROM token WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return None if row is None else Token(row[0], row[1], row[2], tuple(json.loads(row[3])), row[4], row[5])

    def is_spent(self, sha256: str) -> bool:
        """Was a certificate recorded with this token?"""
        row = self._rows.execute("SELECT issuance FROM token WHERE sha256 = ?", (sha256,)).fetchone()
        return row is not None and row[0] is not None

    def cancel_tokens(self, role: str, name: str) -> int:
        """Tokens that are still good for an identity are good no more; → how many."""
        with self._rows:
            cancelled = self._rows.execute(
                "DELETE FROM token WHERE role = ? AND name = ? AND spent_at IS NULL", (role, name)
            )
        return cancelled.rowcount

    def counter(self, name: str) -> int:
        """A number that only grows; 0 at first."""
        row = self._rows.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def count(self, name: str) -> int:
        """The next number, durable before it is used."""
        with self._rows:
            self._rows.execute(
                "INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,)
            )
            return self.counter(name)

    def saw_bundle(self, role: str, name: str, sequence: int, now: datetime) -> None:
        """An identity was given the bundle of this sequence."""
        with self._rows:
            self._rows.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (role, name)"
                " DO UPDATE SET bundle = max(bundle, excluded.bundle), at = excluded.at",
                (role, name, sequence, int(now.timestamp())),
            )

    def bundles_seen(self) -> dict[tuple[str, str], int]:
        """(role, name) → sequence of the newest bundle it was given."""
        return {(row[0], row[1]): row[2] for row in self._rows.execute("SELECT role, name, bundle FROM seen")}

    def saw_certificate(self, held: Issuance) -> None:
        """Somebody proved that he has it. Written only when it is news: who asks often costs no sync of the disk."""
        row = self._rows.execute("SELECT issuance FROM shown WHERE role = ? AND name = ?", (held.role, held.name))
        known = row.fetchone()
        if known is None or known[0] < held.number:
            with self._rows:
                self._rows.execute("INSERT OR REPLACE INTO shown VALUES (?, ?, ?)", (held.role, held.name, held.number))

    def issuers_shown(self) -> dict[tuple[str, str], str]:
        """(role, name) → issuer (hex digest of its key) of the newest certificate that the identity has shown."""
        query = "SELECT s.role, s.name, i.issuer_sha256 FROM shown s JOIN issuance i ON i.id = s.issuance"
        return {(role, name): issuer for role, name, issuer in self._rows.execute(query)}


def _issuance(number: int, serial: str, issuer: str, role: str, name: str, names: str, *rest: Any) -> Issuance:
    return Issuance(number, int(serial, 16), issuer, role, name, tuple(json.loads(names)), *rest)
