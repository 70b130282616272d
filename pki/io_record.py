"""The authority's record: a row per issuance in SQLite, and a leaf per event in the authority's transparency log.

Both are written before a signature is made and after it: intent (durable) → sign → outcome (durable). The row is what
the authority itself asks (is this key known? which intents have no outcome?), the log is what an auditor holds it to:
who changes the rows cannot change the leaves. Crash story, step by step:
- before the intent row: nothing happened;
- after the row or its leaf: an intent without outcome; revoked when the authority is opened next, for a signature may
  have been made;
- after the outcome row, before its leaf was published: the certificate was not handed out; revoked at the next open.
Cannot record = cannot sign: every failure here is `NotRecorded`, and no certificate leaves the authority.

A leaf is flat JSON, sorted, compact:
    {"@timestamp":"2026-11-21T09:40:00Z","event.action":"pki.issued","event.outcome":"success","pki.certificate_sha256":…}
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from pki.errors import LogError, NotRecorded, UnsafeFile
from pki.tlog import note
from pki.tlog.io_log import LogWriter

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
    certificate BLOB,
    outcome_index INTEGER,
    UNIQUE (serial)
) STRICT;
CREATE INDEX IF NOT EXISTS issuance_key ON issuance (spki_sha256);
CREATE INDEX IF NOT EXISTS issuance_state ON issuance (state) WHERE state = 'intent' OR outcome_index IS NULL;
"""

Facts = Mapping[str, str | int | list[str]]


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

    def facts(self) -> dict[str, str | int | list[str]]:
        return {
            "pki.serial": f"{self.serial:x}",
            "pki.issuer_sha256": self.issuer_sha256,
            "pki.role": self.role,
            "pki.name": self.name,
            "pki.names": self.names,
            "pki.spki_sha256": self.spki_sha256,
            "pki.not_after": timestamp(self.not_after),
            "pki.requester": self.requester,
        }


@dataclass(frozen=True, slots=True)
class Logged:
    """Where an outcome stands in the authority's log."""

    index: int
    entry: bytes
    """The exact bytes of the leaf."""
    proof: bytes
    """A C2SP tlog-proof of it; the entry itself stands in its `extra` line, so that the file is all one needs."""


class Record:
    """Rows and log of one authority. Owned by `io_authority`, which holds the authority's lock."""

    def __init__(self, rows: sqlite3.Connection, log: LogWriter):
        self._rows = rows
        self._log = log

    @classmethod
    def open(cls, directory: Path, *, origin: str, key: ed25519.Ed25519PrivateKey, now: datetime) -> Record:
        """Open both, and finish what a crash left open. `key` signs the log's checkpoints.

        Raises:
            NotRecorded: the row file or the log cannot be opened, or the log is not the one last signed.
        """
        signer = note.Signer(origin, key.private_bytes_raw())
        with ExitStack() as held:
            with _recording(directory):
                rows = held.enter_context(closing(_open_rows(directory / "record.sqlite")))
                log = LogWriter.open(directory / "log", origin=origin, signer=signer, head_copy=directory / "log.head")
                held.callback(log.close)
            record = cls(rows, log)
            record._finish_interrupted(now)
            held.pop_all()  # from here on the object owns both
        return record

    def close(self) -> None:
        self._rows.close()
        self._log.close()

    def intend(self, intent: Intent, now: datetime) -> tuple[int, int]:
        """Write the intent durably; → (issuance number, log index).

        Raises:
            NotRecorded: it could not be written; nothing may be signed.
        """
        with _recording("intent"):
            with self._rows:
                number = self._rows.execute(
                    "INSERT INTO issuance (serial, issuer_sha256, role, name, names, spki_sha256, not_after, requester,"
                    " requested_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent')",
                    (
                        f"{intent.serial:x}",
                        intent.issuer_sha256,
                        intent.role,
                        intent.name,
                        json.dumps(intent.names),
                        intent.spki_sha256,
                        int(intent.not_after.timestamp()),
                        intent.requester,
                        int(now.timestamp()),
                    ),
                ).lastrowid
            assert number is not None
            index = self._log.append([_entry("pki.intent", "unknown", now, {"pki.issuance": number, **intent.facts()})])
            self._log.sync()
        return number, index

    def issued(self, number: int, intent: Intent, certificate: bytes, sha256: str, now: datetime) -> Logged:
        """Write the outcome durably and publish it.

        Raises:
            NotRecorded: it could not be written; the certificate must not be handed out.
        """
        facts: Facts = {"pki.issuance": number, **intent.facts(), "pki.certificate_sha256": sha256}
        with _recording("outcome"):
            with self._rows:
                self._rows.execute(
                    "UPDATE issuance SET state = 'issued', certificate = ? WHERE id = ?", (certificate, number)
                )
            logged = self._append_and_publish(_entry("pki.issued", "success", now, facts))
            self._set_index(number, logged.index)
        return logged

    def revoked(self, number: int, serial: str, reason: str, now: datetime) -> None:
        """Mark one issuance revoked, in the rows and in the log.

        Raises:
            NotRecorded: it could not be written.
        """
        facts: Facts = {"pki.issuance": number, "pki.serial": serial, "event.reason": reason}
        with _recording("revocation"):
            with self._rows:
                self._rows.execute(
                    "UPDATE issuance SET state = 'revoked', reason = ?, outcome_index = NULL WHERE id = ?",
                    (reason, number),
                )
            self._set_index(number, self._append_and_publish(_entry("pki.revoked", "success", now, facts)).index)

    def refused(self, facts: Facts, now: datetime) -> None:
        """Leave a leaf for a request that was not granted.

        Raises:
            NotRecorded: it could not be written.
        """
        with _recording("refusal"):
            self._append_and_publish(_entry("pki.refused", "failure", now, facts))

    def key_owner(self, spki_sha256: str) -> tuple[str, str] | None:
        """(role, name) that a public key was certified for before, or None."""
        with _recording("rows"):
            row = self._rows.execute(
                "SELECT role, name FROM issuance WHERE spki_sha256 = ? ORDER BY id LIMIT 1", (spki_sha256,)
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def _finish_interrupted(self, now: datetime) -> None:
        with _recording("recovery"):
            left = self._rows.execute(
                "SELECT id, serial, state, reason FROM issuance"
                " WHERE state = 'intent' OR outcome_index IS NULL ORDER BY id"
            ).fetchall()
            latest = self._rows.execute("SELECT max(requested_at) FROM issuance").fetchone()[0]
        for number, serial, state, reason in left:
            self.revoked(number, serial, reason or ("no-outcome" if state == "intent" else "not-handed-out"), now)
        if latest is not None and now.timestamp() < latest - 60:
            # Not refused: a clock that once ran ahead would lock the authority for as long. But it is on the record.
            self.refused({"event.reason": "clock-stepped-back", "pki.latest_request": int(latest)}, now)

    def _append_and_publish(self, entry: bytes) -> Logged:
        index = self._log.append([entry])
        self._log.sync()
        self._log.publish()
        return Logged(index, entry, replace(self._log.inclusion(index), extra=entry).encode())

    def _set_index(self, number: int, index: int) -> None:
        with self._rows:
            self._rows.execute("UPDATE issuance SET outcome_index = ? WHERE id = ?", (index, number))


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(action: str, outcome: str, now: datetime, facts: Facts) -> bytes:
    head: Facts = {"@timestamp": timestamp(now), "event.kind": "event", "event.category": ["configuration"]}
    document = {**head, "event.action": action, "event.outcome": outcome, **facts}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _open_rows(path: Path) -> sqlite3.Connection:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    facts = os.fstat(descriptor)
    os.close(descriptor)
    if facts.st_mode & 0o077 or facts.st_uid not in {os.geteuid(), 0}:
        raise UnsafeFile(f"{path}: open to others; run: chmod 600 {path}")
    with ExitStack() as held:
        rows = held.enter_context(closing(sqlite3.connect(path, timeout=5, isolation_level="IMMEDIATE")))
        # EXTRA also syncs the directory after the rollback journal is deleted: a committed row survives a power cut.
        rows.execute("PRAGMA synchronous = EXTRA")
        rows.executescript(_SCHEMA)
        held.pop_all()
    return rows


@contextmanager
def _recording(what: object) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, LogError, OSError) as error:
        raise NotRecorded(f"the authority's record ({what}) cannot be written: {error}") from error
