"""`edge serve`: the process that starts, replaces, reloads and stops the others. No request passes here.

Start, each step only when the one before it holds (so the public socket never listens before decisions can be recorded):

    1 read and judge the files   2 claim state/run   3 the authority, the gateway's own certificates   4 bind the sockets
    5 store   6 notary, and what an earlier run left in its rings   7 worker   8 watcher, control socket, `ready …`

SIGHUP reads the files again; SIGUSR2 does, and then replaces the worker processes one by one (see `rolling`).

Stop, on SIGTERM or SIGINT (a second one hurries):

    1 sockets closed, workers drain   2 authority   3 rings recovered   4 log sealed   5 store   6 exit 0
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge.audit import io_ring, notary, place
from edge.audit.io_recorder import load_pseudonym_key
from edge.audit.record import Value
from edge.config.io_load import load
from edge.config.sources import Sources
from edge.errors import ConfigError, EdgeError, UnsafeState
from edge.serve import sockets, stopping, worker
from edge.serve.board import Board, Fact
from edge.serve.ca_link import CaLink
from edge.serve.children import Exit, Nursery, set_limits, set_name
from edge.serve.commands import Commands
from edge.serve.control_socket import ControlSocket
from edge.serve.errand import Errand, Failure
from edge.serve.messages import Kind, Note
from edge.serve.notary_link import NotaryLink
from edge.serve.outline import EMBEDDED, Outline, judge, read_verdict, watched_files
from edge.serve.own_log import OwnLog
from edge.serve.pool import Pool, Worker
from edge.serve.reactor import Reactor
from edge.serve.reload import JUDGE_WITHIN_S, Current, Event, Reload
from edge.serve.renewal import Renewal, Renewed
from edge.serve.report import Report
from edge.serve.rolling import Rolling
from edge.serve.run_state import RunState
from edge.serve.service_manager import ServiceManager
from edge.serve.status import Status, collect
from edge.serve.store import EmbeddedStore
from edge.serve.watch import Watcher
from edge.serve.watchdog import Watchdog

_STORE_WITHIN_S = 10.0
_NOTARY_WITHIN_S = 60.0
_WORKERS_WITHIN_S = 60.0
_WATCH_WITHIN_S = 2.0
_CA_WITHIN_S = 25.0


class _Stop(Exception):
    """A signal asked to stop before everything ran."""


class StartFailed(EdgeError):
    """A child could not start for a reason that another try would not change."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Supervisor:
    """One `edge serve`. Everything here belongs to its one thread."""

    def __init__(self, edge_yaml: Path, report: Report) -> None:
        self._edge_yaml = edge_yaml
        self._report = report
        self._reactor = Reactor()
        self._nursery = Nursery(report.unexpected)
        self._stops = 0
        self._manager = ServiceManager.take(os.environ)
        self._renewal = Renewal(self._reactor, self._nursery, report)
        # Built by the start in this order, taken down by the stop in the reverse one.
        self._run_state: RunState | None = None
        self._listeners: dict[str, list[socket.socket]] = {}
        self._ca: CaLink | None = None
        self._store: EmbeddedStore | None = None
        self._notary: NotaryLink | None = None
        self._log: OwnLog | None = None
        self._board: Board | None = None
        self._pool: Pool | None = None
        self._reload: Reload | None = None
        self._watcher: Watcher | None = None
        self._commands: Commands | None = None
        self._control: ControlSocket | None = None

    def run(self) -> int:
        """Serve until told to stop; the result is the exit code (design §7)."""
        set_name("edge-supervisor")
        os.umask(0o077)
        set_limits()
        self._report.adopt_logging()
        # What is loaded by now is shared with every child until somebody writes to it. The collector would: it keeps its
        # marks in the objects. So it forgets them all, here and in the children.
        gc.collect()
        gc.freeze()
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
        self._reactor.catch(signals, self._signalled)
        try:
            self._start()
            self._reactor.run_until(lambda: self._stops > 0)
            code = 0
        except _Stop:
            code = 0
        except ConfigError as exc:
            self._report.faults(exc.faults)
            code = 1
        except UnsafeState as exc:
            self._report.error(str(exc))
            code = 4
        except StartFailed as exc:
            self._report.error(str(exc))
            code = exc.exit_code
        return self._stop(code)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._nursery.reap()
        elif number == signal.SIGHUP:
            if self._reload is not None:
                self._manager.reloading()
                self._reload.request(lambda answer: self._manager.ready(answer.bundle_hash))
        elif number == signal.SIGUSR2:
            if self._commands is not None:
                self._commands.restart_workers()
        else:
            self._stops += 1

    def _await(self, done: Callable[[], bool], within_s: float, what: str) -> None:
        """Turn until `done()`. Raises: _Stop on a signal, StartFailed when it takes too long."""
        if not self._reactor.run_until(lambda: done() or self._stops > 0, within_s):
            raise StartFailed(f"{what} within {within_s:g} s", 70)
        if self._stops:
            raise _Stop

    # Start

    def _start(self) -> None:
        current = self._read()
        state = Path(current.outline.state)
        self._run_state = RunState.claim(state)
        self._start_ca(current.outline, state)
        if self._renew(current.outline):
            current = self._read()
        outline = current.outline
        for name, host, port in outline.listeners:
            self._listeners[name] = sockets.bind(name, (host, port), outline.workers)
        self._board = Board(outline.workers)
        self._board.tell(Fact.STARTED_S, int(time.time()))
        self._in_force()
        self._start_store(outline, state)
        pseudonym_key = self._start_notary(outline, state)
        self._start_workers(current, pseudonym_key)
        self._start_watching(current)
        for warning in outline.warnings:
            self._report.warning(warning)
        assert self._log is not None
        self._log.event("process.start", {"policy.version": outline.bundle_hash, "process.pid": os.getpid()})
        self._report.ready({name: sockets.address_text(group[0]) for name, group in self._listeners.items()})
        self._manager.ready(outline.bundle_hash)

    def _load(self) -> Sources:
        return load(self._edge_yaml, os.environ)

    def _read(self) -> Current:
        """Raises: ConfigError, UnsafeState."""
        sources = self._load()
        results: list[Current | ConfigError] = []

        def judged(result: bytes | Failure) -> None:
            verdict = read_verdict(result, sources.edge.name)
            outline = verdict.outline
            results.append(ConfigError(verdict.faults) if outline is None else Current(sources, outline))

        Errand(self._reactor, self._nursery, "edge-judge", lambda: judge(sources), judged, timeout_s=JUDGE_WITHIN_S)
        self._await(lambda: bool(results), JUDGE_WITHIN_S + 5, "the files were not judged")
        if isinstance(results[0], ConfigError):
            raise results[0]
        return results[0]

    def _start_ca(self, outline: Outline, state: Path) -> None:
        """Where this gateway hosts the CA. One that stays closed does not stop a start: what is issued already serves."""
        if (outline.issues_gateway or outline.issues_public) and os.path.lexists(state / "ca"):
            link = self._ca = CaLink(self._reactor, self._nursery, state, dict(outline.services), self._report)
            link.start()
            self._await(lambda: link.is_settled, _CA_WITHIN_S, "the authority's process did not start")
            self._renewal.ask(link)
        else:
            self._renewal.follow(outline, lambda: self._stops > 0)

    def _renew(self, outline: Outline) -> bool:
        """Whether certificates were written. Raises: UnsafeState when the needed ones cannot be made."""
        results: list[Renewed] = []
        self._renewal.run(outline, results.append)
        self._await(lambda: bool(results), 60.0, "the gateway's own certificates were not made")
        if results[0].failure is not None:
            raise UnsafeState(results[0].failure)
        return bool(results[0].changed)

    def _start_store(self, outline: Outline, state: Path) -> None:
        if outline.store != EMBEDDED:
            return
        assert self._run_state is not None
        store = self._store = EmbeddedStore(self._reactor, self._nursery, self._run_state, state, self._report)
        store.start()
        self._await(lambda: store.is_ready, _STORE_WITHIN_S, f"{self._run_state.path}/store.log: no store")

    def _start_notary(self, outline: Outline, state: Path) -> bytes:
        assert self._run_state is not None
        settings = place.NotarySettings.of(state, outline.audit)
        link = self._notary = NotaryLink(
            self._reactor,
            self._nursery,
            lambda commands: notary.run(commands, settings),
            self._report,
            self._notary_changed,
        )
        settings.directory.mkdir(mode=0o700, exist_ok=True)
        pseudonym_key = load_pseudonym_key(settings.directory)
        for name, path in io_ring.leftovers(self._run_state.rings):
            link.attach(name, path, None, on_recovered=partial(self._recovered, name))
            link.gone(name)
        link.start()
        self._await(lambda: link.is_ready or link.failed_starts >= 3, _NOTARY_WITHIN_S, "the log was not opened")
        if not link.is_ready:
            raise StartFailed(f"{state / 'log'}: the notary cannot open the log; its own message is above", 4)
        self._log = OwnLog(link, self._run_state, outline.audit, pseudonym_key, self._report)
        return pseudonym_key

    def _start_workers(self, current: Current, pseudonym_key: bytes) -> None:
        assert self._notary is not None
        assert self._run_state is not None
        assert self._board is not None
        pool = self._pool = Pool(
            self._reactor,
            self._nursery,
            self._notary,
            self._run_state,
            self._report,
            listeners=self._listeners,
            ca=self._ca,
            board=self._board,
            pseudonym_key=pseudonym_key,
            main=worker.run,
            current=lambda: reload.current.sources,
            on_forked=lambda number: reload.joined(number),
            on_note=self._heard,
            on_lost=self._lost,
            on_recovered=self._recovered,
        )
        reload = self._reload = Reload(
            self._reactor,
            self._nursery,
            pool,
            current,
            self._report,
            load=self._load,
            renew=self._renewal.run,
            record=self._record_reload,
            on_applied=self._applied,
        )
        count = current.outline.workers
        for index in range(count):
            pool.start(index)
        self._await(
            lambda: len(pool.serving()) == count or pool.first_failure is not None,
            _WORKERS_WITHIN_S,
            "the worker did not serve",
        )
        if pool.first_failure is not None:
            raise StartFailed(f"the worker cannot start: {pool.first_failure.detail}", pool.first_failure.exit_code)

    def _start_watching(self, current: Current) -> None:
        assert self._run_state is not None
        assert self._reload is not None
        assert self._pool is not None
        rolling = Rolling(self._reactor, self._pool, current.outline.workers)
        commands = self._commands = Commands(self._reload, rolling, self._ca, self._report, self._status)
        self._control = ControlSocket(self._reactor, self._run_state.directory_fd, commands.handle)
        watcher = self._watcher = Watcher(self._reactor, self._nursery, self._report, self._reload.request)
        watcher.watch(watched_files(current.sources))
        if not self._reactor.run_until(lambda: watcher.is_armed or self._stops > 0, _WATCH_WITHIN_S):
            self._report.warning("edits are not noticed yet; `edge reload` and SIGHUP work")
        assert self._board is not None
        Watchdog(self._reactor, self._nursery, self._board, self._pool, self._report)
        self._renewal.each_hour(self._current_outline, self._reload.request)
        if self._ca is not None:
            self._ca.on_changed = self._reload.request
            self._ca.adopt(dict(current.outline.services), current.outline.bundle_sha256)

    def _current_outline(self) -> Outline:
        assert self._reload is not None
        return self._reload.current.outline

    # Events while running

    def _status(self) -> Status:
        assert self._board is not None
        assert self._pool is not None
        outline = self._current_outline()
        workers = {worker.pid: (f"worker{worker.index}", worker.state) for worker in self._pool.workers}
        processes = [("supervisor", os.getpid(), "running")]
        for kernel_name, pid in self._nursery.processes:
            name, state = workers.get(pid, (kernel_name.removeprefix("edge-"), "running"))
            processes.append((name, pid, state))
        return collect(
            self._board,
            bundle_hash=outline.bundle_hash,
            listeners={name: sockets.address_text(group[0]) for name, group in self._listeners.items()},
            processes=processes,
            store="embedded" if outline.store == EMBEDDED else "external",
            has_limits=outline.has_limits,
            certificates=outline.certificates,
            log_directory=Path(outline.state) / "log",
        )

    def _in_force(self) -> None:
        assert self._board is not None
        self._board.add(Fact.GENERATION)

    def _notary_changed(self, is_ready: bool) -> None:
        assert self._board is not None
        self._board.tell(Fact.NOTARY_UP, int(is_ready))

    def _heard(self, number: int, kind: Kind, note: Note) -> None:
        if self._reload is not None:
            self._reload.heard(number, kind, note)

    def _lost(self, worker: Worker, ended: Exit) -> None:
        if self._reload is not None:
            self._reload.lost(worker.number)
        if worker.is_retiring and ended.status == 0:
            return  # as it was asked to
        if self._log is not None and self._board is not None and self._stops == 0:
            self._board.add(Fact.REPLACED)
            facts: dict[str, Value] = {"process.name": f"worker{worker.index}", "process.pid": ended.pid}
            facts["process.exit_code"] = ended.status
            self._log.event("process.replace", facts, failed=str(ended))

    def _recovered(self, name: str, unknown: int) -> None:
        if unknown:
            self._report.warning("requests without a known outcome are in the log", writer=name, count=unknown)

    def _record_reload(self, event: Event, bundle_hash: str, previous: str, failed: str | None) -> None:
        if self._log is not None:
            facts = {"policy.version": bundle_hash, "config.previous": previous}
            self._log.event(event.value, facts, failed=failed)
        if event is Event.REFUSED and self._board is not None:
            self._board.add(Fact.REFUSED)

    def _applied(self, current: Current) -> None:
        self._manager.serving(current.outline.bundle_hash)
        if self._ca is not None:
            self._ca.adopt(dict(current.outline.services), current.outline.bundle_sha256)
        self._in_force()
        if self._watcher is not None:
            self._watcher.watch(watched_files(current.sources))

    # Stop

    def _stop(self, code: int) -> int:
        """Take down what runs, in order. A step that does not end in time is cut, and the next one begins."""
        self._manager.stopping()
        if self._reload is not None:
            self._reload.close()
        self._renewal.stop()
        if self._control is not None:
            self._control.close()
        if self._watcher is not None:
            self._watcher.stop()
        sockets.close_all(self._listeners)
        if self._pool is not None:
            hurry = max(self._stops, 1)
            stopping.drain(self._reactor, self._pool, lambda: self._stops > hurry)
        if self._ca is not None:
            stopping.stop_ca(self._reactor, self._ca)
        if self._notary is not None:
            code = stopping.seal(self._reactor, self._notary, self._log, self._report) or code
        if self._store is not None:
            stopping.stop_store(self._reactor, self._store)
        for pid in self._nursery.pids:  # errands under way
            self._nursery.kill(pid)
        self._reactor.run_until(lambda: not self._nursery.pids, 2.0)
        if self._run_state is not None:
            self._run_state.close()
        self._reactor.close()
        return code
