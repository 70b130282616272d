"""The board as Prometheus text, read back by Prometheus' own parser."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edge.model.route import PathPattern, Route, Upstream
from edge.observe import Gauge, Observer
from edge.serve.board import Board, Fact
from edge.serve.metrics import exposition

ROUTE = Route("orders", PathPattern("/orders/{id}", ()), ("h",), ("GET",), Upstream("o", "s"), ("jwt",))


CERTIFICATES = [("public:a.pem", 1_800_000_000)]


def samples(board: Board) -> dict[tuple[str, str], float]:
    """(name, worker or bucket) → value; one series of requests in these tests."""
    return {
        (sample.name, sample.labels.get("worker", sample.labels.get("le", ""))): sample.value
        for family in text_string_to_metric_families(exposition(board, CERTIFICATES).decode())
        for sample in family.samples
    }


def board_of(workers: int) -> tuple[Board, list[Observer]]:
    board, observers = Board(workers), []
    for index in range(workers):
        observers.append(Observer(board.take(index + 1, index).memory))
        board.own(index + 1, 100 + index)
        observers[-1].show(Gauge.UPDATED_NS, 1)
    return board, observers


def test_requests_of_all_workers_are_one_histogram_in_seconds() -> None:
    board, observers = board_of(3)
    for observer in observers:
        observer.request(ROUTE, "GET", 200, None, 20_000_000, 10, 100)
    found = samples(board)
    assert found["http_server_request_duration_seconds_count", ""] == 3
    assert found["http_server_request_duration_seconds_bucket", "0.01"] == 0
    assert found["http_server_request_duration_seconds_bucket", "0.025"] == 3
    assert found["http_server_request_duration_seconds_bucket", "+Inf"] == 3
    assert round(found["http_server_request_duration_seconds_sum", ""], 6) == 0.06
    assert found["http_server_request_body_size_bytes_sum", ""] == 30
    assert found["http_server_response_body_size_bytes_sum", ""] == 300


def test_labels_are_those_that_are_bounded() -> None:
    board, [observer] = board_of(1)
    observer.request(ROUTE, "GET", 403, "forbidden", 1, 0, 0)
    text = exposition(board, CERTIFICATES).decode()
    labels = {
        tuple(sorted(sample.labels))
        for family in text_string_to_metric_families(text)
        if family.name == "http_server_response_body_size_bytes"
        for sample in family.samples
    }
    assert labels == {("edge_route", "error_type", "http_request_method", "http_response_status_class", "http_route")}
    assert 'error_type="forbidden"' in text
    assert 'http_route="/orders/{id}"' in text


def test_what_describes_a_process_carries_its_worker() -> None:
    board, observers = board_of(2)
    observers[1].show(Gauge.RING_FREE, 4000)
    observers[1].show(Gauge.STORE_UP, 1)
    observers[1].show(Gauge.CPU_US, 1_500_000)
    found = samples(board)
    assert (found["edge_audit_ring_free_slots", "0"], found["edge_audit_ring_free_slots", "1"]) == (0, 4000)
    assert (found["edge_store_up", "0"], found["edge_store_up", "1"]) == (0, 1)
    assert found["process_cpu_seconds_total", "1"] == 1.5


def test_worker_that_is_gone_or_leaves_shows_no_gauge_but_its_requests_stay() -> None:
    board, observers = board_of(2)
    observers[0].request(ROUTE, "GET", 200, None, 1, 0, 0)
    board.free(1)
    observers[1].show(Gauge.RETIRING, 1)
    found = samples(board)
    assert not any(name == "edge_store_up" for name, _ in found)
    assert found["http_server_request_duration_seconds_count", ""] == 1


def test_facts_of_the_gateway_and_the_end_of_each_certificate() -> None:
    board, _ = board_of(1)
    board.tell(Fact.GENERATION, 4)
    text = exposition(board, CERTIFICATES).decode()
    assert samples(board)["edge_config_generation", ""] == 4
    assert 'edge_certificate_expiry_timestamp_seconds{certificate="public:a.pem"} 1.8e+09' in text
    assert 'certificate="gateway"' not in text


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    board, [observer] = board_of(1)
    observer.request(ROUTE, "GET", 200, None, 1, 0, 0)
    text = exposition(board, CERTIFICATES).decode()
    found = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    document = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", document, re.M)) == found
