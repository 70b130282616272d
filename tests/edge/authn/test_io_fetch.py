from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edge.authn import io_fetch, urls
from edge.authn.io_fetch import FetchFailed
from tests.edge.authn.simulator import Answer, IssuerOnLoopback, issuer_on_loopback

pytestmark = pytest.mark.asyncio


async def _fetch(issuer: IssuerOnLoopback, path: str = "/keys") -> bytes:
    return await io_fetch.fetch(urls.parse(issuer.url + path), io_fetch.tls_context(issuer.ca_pem))


async def _failure(answer: Answer) -> str:
    async with issuer_on_loopback() as issuer:
        issuer.answers["/keys"] = answer
        with pytest.raises(FetchFailed) as failed:
            await _fetch(issuer)
    return str(failed.value)


async def test_a_document_is_fetched_whole() -> None:
    async with issuer_on_loopback() as issuer:
        issuer.answers["/keys"] = Answer(b"k" * 200_000)
        assert await _fetch(issuer) == b"k" * 200_000


async def test_loopback_is_fetched_without_tls_too() -> None:
    async with issuer_on_loopback(scheme="http") as issuer:
        issuer.answers["/keys"] = Answer(b"{}")
        assert await _fetch(issuer) == b"{}"


async def test_no_compression_is_asked_for_and_no_cookie_sent() -> None:
    async with issuer_on_loopback() as issuer:
        issuer.answers["/keys"] = Answer(b"{}", fields=("Set-Cookie: a=b",))
        await _fetch(issuer)
        await _fetch(issuer)
        assert "accept-encoding: identity" in issuer.heads[1].lower()
        assert "cookie" not in issuer.heads[1].lower()


@pytest.mark.parametrize("status", ["201 Created", "404 Not Found", "500 Oops"])
async def test_another_status_than_200_is_no_document(status: str) -> None:
    assert f"status {status[:3]}" in await _failure(Answer(b"{}", status=status))


async def test_e4_a_redirect_is_not_followed() -> None:
    async with issuer_on_loopback() as issuer:
        issuer.answers["/keys"] = Answer(status="302 Found", fields=("Location: /elsewhere",))
        issuer.answers["/elsewhere"] = Answer(b"{}")
        with pytest.raises(FetchFailed, match="status 302"):
            await _fetch(issuer)
        assert issuer.seen == ["/keys"]


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_large_body_is_refused(has_length: bool) -> None:
    assert "larger than" in await _failure(Answer(b"k" * (io_fetch.MAX_BYTES + 1), has_length=has_length))


async def test_a_compressed_body_is_refused() -> None:
    assert "compressed" in await _failure(Answer(b"\x1f\x8b", fields=("Content-Encoding: gzip",)))


async def test_a_truncated_body_is_refused() -> None:
    assert await _failure(Answer(b"{}", has_length=False, fields=("Content-Length: 10",)))


async def test_an_answer_that_is_no_http_is_refused() -> None:
    assert await _failure(Answer(status="\x00"))


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    async with issuer_on_loopback() as issuer:
        with pytest.raises(FetchFailed, match="certificate"):
            await io_fetch.fetch(urls.parse(issuer.url + "/keys"), io_fetch.tls_context(None))
        assert issuer.seen == []


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with issuer_on_loopback(name="idp.example.com") as issuer:
        with pytest.raises(FetchFailed, match=r"[Cc]ertificate"):
            await _fetch(issuer)
        assert issuer.seen == []


async def test_silence_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_fetch, "TIMEOUT_S", 0.05)
    async with issuer_on_loopback() as issuer:
        issuer.gate = asyncio.Event()
        with pytest.raises(FetchFailed, match="no answer within"):
            await _fetch(issuer)
        issuer.gate.set()


async def test_nobody_at_the_address_is_no_document() -> None:
    async with issuer_on_loopback() as issuer:
        gone = issuer.url
    with pytest.raises(FetchFailed):
        await io_fetch.fetch(urls.parse(gone + "/keys"), io_fetch.tls_context(None))


async def test_localhost_is_resolved_and_judged() -> None:
    async with issuer_on_loopback(name="localhost") as issuer:
        issuer.answers["/keys"] = Answer(b"{}")
        url = urls.parse(issuer.url.replace("127.0.0.1", "localhost") + "/keys")
        assert await io_fetch.fetch(url, io_fetch.tls_context(issuer.ca_pem)) == b"{}"


class _SystemResolver:
    """The name service, with an answer that its owner chose."""

    addresses: ClassVar[list[str]] = []

    async def resolve(self, host: str, port: int, family: int) -> list[dict[str, Any]]:
        common = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [common | {"host": address} for address in self.addresses]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "64:ff9b::a9fe:a9fe", "::ffff:127.0.0.1"])
async def test_e4_a_name_that_resolves_to_plumbing_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(io_fetch, "ThreadedResolver", _SystemResolver)
    monkeypatch.setattr(_SystemResolver, "addresses", [address])
    with pytest.raises(FetchFailed, match="nothing that may be connected to"):
        await io_fetch.fetch(urls.parse("https://idp.example.com/keys"), io_fetch.tls_context(None))


async def test_e4_of_several_addresses_only_the_allowed_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_fetch, "ThreadedResolver", _SystemResolver)
    monkeypatch.setattr(_SystemResolver, "addresses", ["169.254.169.254", "127.0.0.1"])
    async with issuer_on_loopback(name="idp.example.com") as issuer:
        issuer.answers["/keys"] = Answer(b"{}")
        url = urls.parse(issuer.url.replace("127.0.0.1", "idp.example.com") + "/keys")
        assert await io_fetch.fetch(url, io_fetch.tls_context(issuer.ca_pem)) == b"{}"


async def test_a_name_that_resolves_to_nothing_is_no_document() -> None:
    with pytest.raises(FetchFailed):
        await io_fetch.fetch(urls.parse("https://idp.invalid/keys"), io_fetch.tls_context(None))


async def test_p46_p47_proxies_and_key_logs_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    async with issuer_on_loopback() as issuer:
        issuer.answers["/keys"] = Answer(b"{}")
        assert await _fetch(issuer) == b"{}"
    assert list(tmp_path.iterdir()) == []


async def test_tls_below_1_2_is_not_spoken() -> None:
    context = io_fetch.tls_context(None)
    assert (ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED, True) == (
        *(context.minimum_version, context.verify_mode),
        context.check_hostname,
    )
