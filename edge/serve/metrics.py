"""`/metrics`: the board as Prometheus text. OpenTelemetry's names, translated as its Prometheus exporter does.

Counters of requests are added up over all workers and survive the death of one; what describes a process carries the label
`worker`. Labels are the route, the method, the class of the status and the reason of a refusal: nothing a stranger chooses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from edge.observe import BOUNDS_S, Gauge, Labels, Series, gauge, merge
from edge.serve.board import Board, Fact, Row
from edge.serve.instances import ServiceCounts, services

_NS = 1_000_000_000
_LABELS = ("http_request_method", "edge_route", "http_route", "http_response_status_class", "error_type")
_BOUNDS = (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf")

WORKER_GAUGES: dict[str, tuple[Gauge, int, str]] = {
    "edge_downstream_connections": (Gauge.CONNECTIONS, 1, "Open connections of the public listener."),
    "edge_services_connections": (Gauge.SERVICES_CONNECTIONS, 1, "Open connections of the services listener."),
    "edge_enrol_connections": (Gauge.ENROL_CONNECTIONS, 1, "Open connections of the enrol listener."),
    "edge_upstream_connections": (Gauge.UPSTREAM_CONNECTIONS, 1, "Open connections to upstreams."),
    "edge_upstream_idle_connections": (Gauge.UPSTREAM_IDLE, 1, "Of these, waiting for work."),
    "edge_audit_ring_free_slots": (Gauge.RING_FREE, 1, "Slots of the access log's ring that are free."),
    "edge_audit_ring_slots": (Gauge.RING_SLOTS, 1, "Slots of the access log's ring."),
    "edge_audit_recordable": (Gauge.RECORDABLE, 1, "1 while requests can be recorded."),
    "edge_store_up": (Gauge.STORE_UP, 1, "1 while the store of the limits answers this worker."),
    "edge_revocation_known": (
        Gauge.REVOCATION_KNOWN,
        1,
        "1 while it is known what is revoked; else no new connections.",
    ),
    "edge_upstreams_accepting_anyone": (
        Gauge.UPSTREAMS_OUT,
        1,
        "Upstream addresses that answer without a client certificate, and get no request.",
    ),
    "process_resident_memory_bytes": (Gauge.RSS_BYTES, 1, "Resident memory, shared pages included."),
}
"""Metric → gauge of the row, divisor, help."""
FACTS: dict[str, tuple[Fact, str]] = {
    "edge_workers": (Fact.WORKERS, "Workers that should serve."),
    "edge_config_generation": (Fact.GENERATION, "Configurations in force so far; grows by one with each reload."),
    "edge_notary_up": (Fact.NOTARY_UP, "1 while the process that writes the access log runs."),
    "process_start_time_seconds": (Fact.STARTED_S, "Start of the gateway, since the epoch."),
}


def exposition(board: Board, certificates: Sequence[tuple[str, int]]) -> bytes:
    """The text format. `certificates` are (name, end of life since the epoch)."""
    registry = CollectorRegistry()
    registry.register(_Reading(board, certificates))
    return generate_latest(registry)


class _Reading(Collector):
    """One look at the board."""

    def __init__(self, board: Board, certificates: Sequence[tuple[str, int]]) -> None:
        self._board = board
        self._certificates = certificates

    def describe(self) -> Sequence[Metric]:
        """Nothing to check for duplicates: the registry holds us alone, and lives for one answer."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from _requests(merge(row.memory for row in self._board.rows))
        yield from _gateway(self._board, self._certificates)
        yield from _instances(services(self._board))
        yield from _workers(self._board.live())


def _requests(found: dict[Labels, Series]) -> Iterator[Metric]:
    duration = HistogramMetricFamily(
        "http_server_request_duration", "From the head of a request to its record.", labels=_LABELS, unit="seconds"
    )
    size_in = SummaryMetricFamily("http_server_request_body_size", "Content of requests.", labels=_LABELS, unit="bytes")
    size_out = SummaryMetricFamily(
        "http_server_response_body_size", "Content of answers.", labels=_LABELS, unit="bytes"
    )
    for labels, series in sorted(found.items()):
        values = [labels.method, labels.route, labels.template, labels.status, labels.reason]
        below = list(zip(_BOUNDS, accumulate(series.buckets), strict=True))
        duration.add_metric(values, below, series.duration_ns / _NS)
        size_in.add_metric(values, series.requests, series.bytes_in)
        size_out.add_metric(values, series.requests, series.bytes_out)
    yield from (duration, size_in, size_out)


def _gateway(board: Board, certificates: Sequence[tuple[str, int]]) -> Iterator[Metric]:
    for name, (fact, text) in FACTS.items():
        yield GaugeMetricFamily(name, text, value=board.fact(fact))
    yield CounterMetricFamily("edge_config_refused", "Reloads refused.", value=board.fact(Fact.REFUSED))
    yield CounterMetricFamily("edge_workers_replaced", "Workers that died.", value=board.fact(Fact.REPLACED))
    expiry = GaugeMetricFamily(
        "edge_certificate_expiry_timestamp_seconds", "End of life of what the gateway shows.", labels=("certificate",)
    )
    for name, ends_s in certificates:
        expiry.add_metric([name], ends_s)
    yield expiry


def _instances(found: dict[str, ServiceCounts]) -> Iterator[Metric]:
    states = GaugeMetricFamily("edge_instances", "Instances of a service by state.", labels=("service", "state"))
    busy = GaugeMetricFamily("edge_upstream_requests_in_flight", "Under way at a service.", labels=("service",))
    for service, counts in found.items():
        for state, count in counts.instances.items():
            states.add_metric([service, state], count)
        busy.add_metric([service], counts.in_flight)
    yield from (states, busy)


def _workers(rows: Sequence[Row]) -> Iterator[Metric]:
    current = [row for row in rows if not row.is_retiring]
    for name, (which, divisor, text) in WORKER_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=("worker",))
        for row in current:
            family.add_metric([str(row.worker)], gauge(row.memory, which) / divisor)
        yield family
    cpu = CounterMetricFamily("process_cpu_seconds", "User and system time.", labels=("worker",))
    age = GaugeMetricFamily("edge_worker_silence_seconds", "Since the worker last said how it is.", labels=("worker",))
    timers = CounterMetricFamily("edge_timer_failures", "Turns of periodic work that failed.", labels=("worker",))
    config = GaugeMetricFamily("edge_config_info", "What is in force.", labels=("worker", "bundle"))
    for row in current:
        worker = str(row.worker)
        cpu.add_metric([worker], gauge(row.memory, Gauge.CPU_US) / 1e6)
        timers.add_metric([worker], gauge(row.memory, Gauge.TIMER_FAILURES))
        silence_ns = time.monotonic_ns() - gauge(row.memory, Gauge.UPDATED_NS)
        age.add_metric([worker], max(0, silence_ns) / _NS)
        config.add_metric([worker, f"{gauge(row.memory, Gauge.CONFIG):016x}"], 1)
    yield from (cpu, age, timers, config)
