"""Taking down what runs, step by step: each has its time, and what does not end within it is cut."""

from __future__ import annotations

import os
from collections.abc import Callable

from edge.serve import worker
from edge.serve.ca_link import CaLink
from edge.serve.notary_link import NotaryLink
from edge.serve.own_log import OwnLog
from edge.serve.pool import Pool
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from edge.serve.store import EmbeddedStore

_DRAIN_GRACE_S = 1.0
_RECOVER_WITHIN_S = 10.0
_SEAL_WITHIN_S = 20.0
_STORE_LEAVES_WITHIN_S = 2.0
_CA_LEAVES_WITHIN_S = 2.0


def drain(reactor: Reactor, pool: Pool, is_hurried: Callable[[], bool]) -> None:
    """Workers finish what is in flight; `is_hurried`: somebody asked to stop a second time."""
    pool.drain()
    reactor.run_until(lambda: pool.is_empty or is_hurried(), worker.DRAIN_S + _DRAIN_GRACE_S)
    pool.kill()
    reactor.run_until(lambda: pool.is_empty, 2.0)


def stop_ca(reactor: Reactor, link: CaLink) -> None:
    """It finishes the request it is at; an issuance that is cut all the same is revoked at the next start."""
    link.stop()
    reactor.run_until(lambda: link.is_stopped, _CA_LEAVES_WITHIN_S)


def seal(reactor: Reactor, link: NotaryLink, log: OwnLog | None, report: Report) -> int:
    """The last records, then the signature over the log; 0 when that was done."""
    if log is None:  # it never opened, so there is nothing to seal
        link.abandon()
        return 0
    log.event("process.stop", {"process.pid": os.getpid()})
    log.close()
    for name in link.writers:
        link.gone(name)
    reactor.run_until(lambda: not link.writers, _RECOVER_WITHIN_S)
    link.seal()
    reactor.run_until(lambda: link.is_stopped and link.is_sealed, _SEAL_WITHIN_S)
    if link.is_sealed:
        return 0
    report.error("the log was not sealed; the next start recovers it")
    link.abandon()
    return 1


def stop_store(reactor: Reactor, store: EmbeddedStore) -> None:
    """Last, since the workers give back what they leased while they drain."""
    store.stop()
    if not reactor.run_until(lambda: store.is_stopped, _STORE_LEAVES_WITHIN_S):
        store.kill()
        reactor.run_until(lambda: store.is_stopped, 1.0)
