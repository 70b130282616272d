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
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from pki.errors import LogError, NotRecorded
from pki.io_rows import Intent, Issuance, Rows, Token
from pki.tlog import note
from pki.tlog.io_log import LogWriter

__all__ = ["Facts", "Intent", "Issuance", "Logged", "Record", "Token", "timestamp"]

Facts = Mapping[str, str | int | list[str]]


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

    def __init__(self, rows: Rows, log: LogWriter):
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
                rows = held.enter_context(closing(Rows.open(directory / "record.sqlite")))
                log = LogWriter.open(directory / "log", origin=origin, signer=signer, head_copy=directory / "log.head")
                held.callback(log.close)
            record = cls(rows, log)
            record._finish_interrupted(now)
            held.pop_all()  # from here on the object owns both
        return record

    def close(self) -> None:
        self._rows.close()
        self._log.close()

    def intend(self, intent: Intent, now: datetime, token_sha256: str | None = None) -> tuple[int, int]:
        """Write the intent durably, and spend the token with it; → (issuance number, log index).

        Raises:
            IssueRefused: the token is not known, spent or expired.
            NotRecorded: it could not be written; nothing may be signed.
        """
        with _recording("intent"):
            number = self._rows.intend(intent, now, token_sha256)
            facts = {"pki.issuance": number, **_facts(intent)}
            if token_sha256 is not None:
                facts["pki.token_sha256"] = token_sha256
            index = self._log.append([_entry("pki.intent", "unknown", now, facts)])
            self._log.sync()
        return number, index

    def issued(self, number: int, intent: Intent, certificate: bytes, sha256: str, now: datetime) -> Logged:
        """Write the outcome durably and publish it.

        Raises:
            NotRecorded: it could not be written; the certificate must not be handed out.
        """
        facts: Facts = {"pki.issuance": number, **_facts(intent), "pki.certificate_sha256": sha256}
        with _recording("outcome"):
            self._rows.issued(number, certificate)
            logged = self._append_and_publish(_entry("pki.issued", "success", now, facts))
            self._rows.place(number, logged.index)
        return logged

    def revoked(self, number: int, serial: int, reason: str, now: datetime, *, requester: str = "authority") -> None:
        """Mark one issuance revoked, in the rows and in the log.

        Raises:
            NotRecorded: it could not be written.
        """
        facts: Facts = {
            "pki.issuance": number,
            "pki.serial": f"{serial:x}",
            "event.reason": reason,
            "pki.requester": requester,
        }
        with _recording("revocation"):
            self._rows.revoked(number, reason, now)
            self._rows.place(number, self._append_and_publish(_entry("pki.revoked", "success", now, facts)).index)

    def refused(self, facts: Facts, now: datetime) -> None:
        """Leave a leaf for a request that was not granted.

        Raises:
            NotRecorded: it could not be written.
        """
        self.event("pki.refused", facts, now, outcome="failure")

    def event(self, action: str, facts: Facts, now: datetime, *, outcome: str = "success") -> None:
        """Leave a leaf for something that is no issuance.

        Raises:
            NotRecorded: it could not be written.
        """
        with _recording(action):
            self._append_and_publish(_entry(action, outcome, now, facts))

    def add_token(self, token: Token, now: datetime, *, requester: str) -> None:
        """Remember a one-time token, and leave a leaf of it (by its digest).

        Raises:
            NotRecorded: it could not be written; the token must not be handed out.
        """
        facts: Facts = {
            "pki.role": token.role,
            "pki.name": token.name,
            "pki.token_sha256": token.sha256,
            "pki.not_after": timestamp(datetime.fromtimestamp(token.expires_at, UTC)),
            "pki.requester": requester,
        }
        self.event("pki.token", facts, now)
        with _recording("token"):
            self._rows.add_token(token, now)

    @property
    def log_key(self) -> note.Verifier:
        """Whose signature is on the log's checkpoints."""
        return self._log.verifier

    def proof(self, index: int) -> bytes:
        """Of an entry of the log, as `Logged.proof`.

        Raises:
            NotRecorded: the log is damaged.
        """
        with _recording("proof"):
            return replace(self._log.inclusion(index), extra=self._log.entry(index)).encode()

    @contextmanager
    def rows(self) -> Iterator[Rows]:
        """The rows, to ask or to count.

        Raises:
            NotRecorded: they cannot be read or written.
        """
        with _recording("rows"):
            yield self._rows

    def _finish_interrupted(self, now: datetime) -> None:
        with self.rows() as rows:
            left = rows.interrupted()
            latest = rows.latest_request()
        for each in left:
            reason = each.reason or ("no-outcome" if each.state == "intent" else "not-handed-out")
            self.revoked(each.number, each.serial, reason, now)
        if latest is not None and now.timestamp() < latest - 60:
            # Not refused: a clock that once ran ahead would lock the authority for as long. But it is on the record.
            self.refused({"event.reason": "clock-stepped-back", "pki.latest_request": latest}, now)

    def _append_and_publish(self, entry: bytes) -> Logged:
        index = self._log.append([entry])
        self._log.sync()
        self._log.publish()
        return Logged(index, entry, replace(self._log.inclusion(index), extra=entry).encode())


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _facts(intent: Intent) -> dict[str, str | int | list[str]]:
    return {
        "pki.serial": f"{intent.serial:x}",
        "pki.issuer_sha256": intent.issuer_sha256,
        "pki.role": intent.role,
        "pki.name": intent.name,
        "pki.names": intent.names,
        "pki.spki_sha256": intent.spki_sha256,
        "pki.not_after": timestamp(intent.not_after),
        "pki.requester": intent.requester,
    }


def _entry(action: str, outcome: str, now: datetime, facts: Facts) -> bytes:
    head: Facts = {"@timestamp": timestamp(now), "event.kind": "event", "event.category": ["configuration"]}
    document = {**head, "event.action": action, "event.outcome": outcome, **facts}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@contextmanager
def _recording(what: object) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, LogError, OSError) as error:
        raise NotRecorded(f"the authority's record ({what}) cannot be written: {error}") from error
