"""The notary: the one process that writes the access log. It drains the rings of all writers, puts their records in one
order, makes them durable, acknowledges them, and signs a head at intervals.

Blocking loop on one thread, no asyncio: there is nothing to wait for but the next batch. It is told what to do by the
supervisor, one JSON object per SOCK_SEQPACKET datagram, descriptors beside it (SCM_RIGHTS):

    supervisor → notary                                notary → supervisor
                                                       {"ready": size}            once, when the log is open
    {"attach": path, "writer": id} [+ nudge socket]    {"attached": id}
    {"gone": id}            the writer is dead         {"recovered": id, "unknown": n}   its ring file is deleted
    {"seal": true}          all writers are done       {"sealed": size}           then it exits
                                                       {"broken": id, "why": text}  a ring made no sense; it is set aside
                                                       {"error": text}            a message was not understood

A ring that a dead gateway left is announced without a socket and followed by `gone` (`io_ring.leftovers`). An `attach`
of a file that is not there is answered `{"attached": id, "missing": true}`, and its `gone` with 0 unknown: so a
supervisor may repeat both after a notary died in between. SIGTERM and SIGINT are ignored; without a supervisor (EOF) it
drains, signs and leaves, and the rings stay for the next start.

When records flow, it looks at the rings every 4 ms (`strict`: at once) and sleeps in between without being nudged; after
one look in vain it asks for a nudge. A nudge can be missed only while two stores cross between cores; then the look at
the next heartbeat finds the record, ≤ 40 ms later.

A log that cannot be opened or written ends the process with UnsafeState: the heartbeat stops, workers answer 503, and
the rings keep what was admitted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import selectors
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from edge.audit import io_ring
from edge.audit.drain import RingReader
from edge.audit.place import NotarySettings
from edge.audit.record import Value, event, event_end, stamp
from edge.audit.ring import LEVEL_FULL, LEVEL_LOW, LEVEL_OK
from edge.errors import UnsafeState
from pki.errors import PkiError
from pki.tlog.io_log import LogWriter, open_signer

BEAT_NS = 40_000_000
"""Promised to the writers: at least every 50 ms."""
GATHER_NS = 2_000_000
"""How long a first record after a pause waits for others under `standard`."""
LOOK_NS = 4_000_000
"""Between two looks under `standard`: with the sync it stays below the promised 5 ms."""
STALL_NS = 1_000_000_000
"""A completion whose bytes are still not there after this long never will be."""
HEADROOM_NS = 1_000_000_000
SCAN_ENTRIES = 1 << 19
"""How far back the log is searched after a reboot: more than a minute of full load, kernels write back in half of it."""

_SEQUENCE = re.compile(rb'"event\.sequence":(\d{1,19})[,}]')


def run(commands: socket.socket, settings: NotarySettings) -> None:
    """Body of the notary process; returns after `seal` or when the supervisor is gone.

    Raises: UnsafeState when the log cannot be opened or written; nothing that was not written is acknowledged.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings.directory.mkdir(mode=0o700, exist_ok=True)
        signer = open_signer(settings.key_file, settings.origin, secrets.token_bytes(32))
        log = LogWriter.open(settings.directory, origin=settings.origin, signer=signer, head_copy=settings.head_copy)
        Notary(commands, settings, log).serve()
        log.close()
    except (PkiError, OSError) as exc:
        raise UnsafeState(f"access log {settings.directory}: {exc}") from exc


@dataclass(slots=True, eq=False)
class _Attached:
    """One writer's ring and the notary's end of its socket pair."""

    writer: str
    reader: RingReader
    nudge: socket.socket | None
    rebooted: bool
    stalled_ns: int = 0


class Notary:
    """The loop. All state is its own; the log is the caller's to close."""

    def __init__(self, commands: socket.socket, settings: NotarySettings, log: LogWriter) -> None:
        self._commands = commands
        self._settings = settings
        self._log = log
        self._opened_size = log.size  # what killed notaries had brought into the log
        self._boot = io_ring.boot_id()
        self._attached: dict[str, _Attached] = {}
        self._stale: dict[str, _Attached] = {}  # made before a reboot: only `gone` may follow
        self._own_stamp = stamp(f"notary.{io_ring.instance():016x}")
        self._own_sequence = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands, selectors.EVENT_READ, None)
        self._gather_ns = 0 if settings.is_strict else GATHER_NS
        self._look_ns = 0 if settings.is_strict else LOOK_NS
        self._publish_ns = int(settings.checkpoint_every_s * 1_000_000_000)
        now = time.monotonic_ns()
        self._awake = True  # False: the writers were asked to nudge
        self._next_look = now
        self._next_publish = now
        self._next_headroom = 0
        self._level = LEVEL_OK
        self._done = False

    def serve(self) -> None:
        """Answer `ready`, then work until told to seal or the supervisor is gone."""
        self._tell({"ready": self._log.size})
        while not self._done:
            for key, _ in self._selector.select(self._timeout_s()):
                if key.fileobj is self._commands:
                    self._on_command()
                else:
                    self._on_nudge(key.data)
            now = time.monotonic_ns()
            self._beat(now)
            if not self._done and (not self._awake or now >= self._next_look):
                self._look(now)
            if now >= self._next_publish and self._log.size != self._log.head.size:
                self._log.publish()
                self._next_publish = time.monotonic_ns() + self._publish_ns
        self._selector.close()

    def _timeout_s(self) -> float | None:
        """Until the next thing that is due; None when only a command can bring work."""
        now = time.monotonic_ns()
        due = []
        if self._attached:
            due.append(self._next_look if self._awake else now + BEAT_NS)
        if self._log.size != self._log.head.size:
            due.append(self._next_publish)
        return max(min(due) - now, 0) / 1e9 if due else None

    def _on_nudge(self, attached: _Attached) -> None:
        if attached.nudge is None:  # detached by a command of the same round
            return
        try:
            alive = bool(attached.nudge.recv(4096))
        except BlockingIOError:
            return
        except ConnectionError:
            alive = False
        if not alive:  # the writer closed its end; `gone` follows
            self._selector.unregister(attached.nudge)
            attached.nudge.close()
            attached.nudge = None
        if not self._awake:
            self._wake(time.monotonic_ns() + self._gather_ns)

    def _wake(self, next_look: int) -> None:
        self._awake = True
        self._next_look = next_look
        for attached in self._attached.values():
            attached.reader.set_sleeping(0)

    def _beat(self, now: int) -> None:
        if now >= self._next_headroom and self._attached:
            self._next_headroom = now + HEADROOM_NS
            disk = os.statvfs(self._settings.directory)
            free, reserve = disk.f_bavail * disk.f_frsize, self._settings.reserve_bytes
            self._level = LEVEL_FULL if free < reserve else LEVEL_LOW if free < 2 * reserve else LEVEL_OK
            for attached in self._attached.values():
                attached.reader.set_level(self._level)
        for attached in self._attached.values():
            attached.reader.beat(now)

    def _look(self, now: int) -> None:
        """Drain; then either come back soon or ask for a nudge."""
        if self._drain([*self._attached.values()], now):
            if not self._awake:
                self._wake(now)
            self._next_look = now + self._look_ns
            return
        if self._awake:
            self._awake = False
            for attached in self._attached.values():
                attached.reader.set_sleeping(now)
        if any(_has_work(attached.reader) for attached in self._attached.values()):  # came before they could know
            self._wake(now)

    def _drain(self, rings: list[_Attached], now: int) -> int:
        """One batch from these rings: append, sync, acknowledge. Returns how many leaves."""
        batch: list[bytes] = []
        broken: list[tuple[_Attached, str]] = []
        parts: list[tuple[_Attached, int]] = []
        size = self._log.size
        for attached in rings:
            reader = attached.reader
            try:
                leaves = reader.read(4096)
                if leaves:
                    attached.stalled_ns = 0
                    reader.arm(size + len(batch), len(leaves))
                    batch += leaves
                    parts.append((attached, len(leaves)))
                elif reader.pending():
                    self._note_stall(attached, now)
            except UnsafeState as exc:
                broken.append((attached, str(exc)))
        if batch:
            self._log.append(batch)
            self._log.sync()
        for attached, count in parts:
            if attached.reader.acknowledge(count) and attached.nudge is not None:
                try:
                    attached.nudge.send(b"\x01")
                except (BlockingIOError, ConnectionError):
                    pass  # it has bytes to read already, or is no more
        for attached, why in broken:
            self._set_aside(attached, why)
        return len(batch)

    def _note_stall(self, attached: _Attached, now: int) -> None:
        """Raises: UnsafeState when the next completion has been unreadable for too long."""
        if not attached.stalled_ns:
            attached.stalled_ns = now
        elif now - attached.stalled_ns > STALL_NS:
            raise UnsafeState(f"{attached.reader.mapping.path}: the next completion is torn")

    def _set_aside(self, attached: _Attached, why: str) -> None:
        """Stop reading a ring that makes no sense. Its writer gets no heartbeat, so it admits nothing any more."""
        self._write_own("log.rejected", {"log.writer": attached.reader.run, "message": why}, failed="ring-broken")
        self._detach(attached)
        path = attached.reader.mapping.path
        path.replace(path.with_suffix(".broken"))  # kept for whoever looks into it
        self._tell({"broken": attached.writer, "why": why})

    def _write_own(self, kind: str, values: dict[str, Value], failed: str | None = None) -> None:
        self._own_sequence += 1
        now = time.time_ns()
        event_id = f"{now:016x}{secrets.token_hex(6)}"
        self._log.append([self._own_stamp + event(kind, self._own_sequence, event_id, now, values) + event_end(failed)])
        self._log.sync()

    # Commands.

    def _on_command(self) -> None:
        raw, descriptors, _, _ = socket.recv_fds(self._commands, 65536, 4)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if not raw:
            self._leave(delete=False)
            return
        try:
            match json.loads(raw):
                case {"attach": str(path), "writer": str(writer)}:
                    self._attach(Path(path), writer, sockets[0] if sockets else None)
                    sockets = []  # its owner now
                case {"gone": str(writer)}:
                    self._recover(writer)
                case {"seal": True}:
                    self._leave(delete=True)
                    self._tell({"sealed": self._log.size})
                case _:
                    self._tell({"error": "not a message to the notary"})
        except (UnsafeState, ValueError) as exc:
            self._tell({"error": str(exc)})
        for unused in sockets:
            unused.close()

    def _tell(self, message: dict[str, Value]) -> None:
        try:
            self._commands.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionError):
            pass  # the supervisor is gone: the next receive says so

    def _attach(self, path: Path, writer: str, nudge: socket.socket | None) -> None:
        if writer in self._attached or writer in self._stale:
            raise UnsafeState(f"{path}: a ring of {writer} is attached; say that it is gone first")
        try:
            reader = RingReader.attach(path, writer)
        except FileNotFoundError:
            if nudge is not None:
                nudge.close()
            self._tell({"attached": writer, "missing": True})
            return
        rebooted = not reader.is_of_boot(self._boot)
        try:
            if not rebooted:
                self._resume(reader)
        except UnsafeState:
            reader.close()
            raise
        attached = _Attached(writer, reader, nudge, rebooted)
        if nudge is not None:
            nudge.setblocking(False)
            self._selector.register(nudge, selectors.EVENT_READ, attached)
        (self._stale if rebooted else self._attached)[writer] = attached
        now = time.monotonic_ns()
        reader.set_level(self._level)
        reader.beat(now)
        self._wake(now)
        self._tell({"attached": writer})

    def _resume(self, reader: RingReader) -> None:
        """Find out whether the batch of a killed notary is in the log: then its first leaf is the one at its index."""
        armed = reader.armed()
        landed = 0
        if armed is not None and armed[0] < self._opened_size:
            first, count = armed
            there = self._log.latest(self._log.size - first)[0]
            if there in [(first, leaf) for leaf in reader.read(1)]:
                landed = min(count, self._opened_size - first)
        reader.resume(landed)

    def _recover(self, writer: str) -> None:
        """Bring everything a dead writer left into the log, then delete its ring."""
        attached = self._attached.get(writer) or self._stale.pop(writer, None)
        if attached is None:
            self._tell({"recovered": writer, "unknown": 0})
            return
        reader = attached.reader
        try:
            unknown = reader.finish(self._written(reader.stamp) if attached.rebooted else ())
            while reader.pending():
                if not self._drain([attached], time.monotonic_ns()):
                    raise UnsafeState(f"{reader.mapping.path}: the next completion is torn")
            last = reader.last_sequence()
        except UnsafeState as exc:
            self._set_aside(attached, str(exc))
            self._tell({"recovered": writer, "unknown": 0})
            return
        self._write_own("log.recovered", {"log.writer": reader.run, "log.last_sequence": last, "log.unknown": unknown})
        self._detach(attached)
        reader.mapping.path.unlink(missing_ok=True)
        self._tell({"recovered": writer, "unknown": unknown})

    def _written(self, head: bytes) -> set[int]:
        """Sequences of one writer that the log has, as far back as they can matter."""
        found = set()
        for _, leaf in self._log.latest(SCAN_ENTRIES):
            if leaf.startswith(head) and (sequence := _SEQUENCE.search(leaf, len(head))) is not None:
                found.add(int(sequence[1]))
        return found

    def _detach(self, attached: _Attached) -> None:
        if attached.nudge is not None:
            self._selector.unregister(attached.nudge)
            attached.nudge.close()
            attached.nudge = None
        self._attached.pop(attached.writer, None)
        attached.reader.close()

    def _leave(self, *, delete: bool) -> None:
        """Drain, sign, and end the loop; `delete` the rings that hold nothing more (their writers are done)."""
        while self._drain([*self._attached.values()], time.monotonic_ns()):
            pass
        for attached in [*self._attached.values(), *self._stale.values()]:
            is_empty = not attached.rebooted and not attached.reader.has_open()
            self._detach(attached)
            if delete and is_empty:
                attached.reader.mapping.path.unlink(missing_ok=True)
        self._log.publish()
        self._done = True


def _has_work(reader: RingReader) -> bool:
    """Whether the next drain has something to do; setting a ring aside that makes no sense is work too."""
    try:
        return reader.pending() > 0
    except UnsafeState:
        return True
