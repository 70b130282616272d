"""One small document by HTTPS, from a party that is not trusted beyond its certificate.

No redirect is followed, nothing is decompressed, no cookie or proxy setting is used, the size and the time are bounded, and
the name is resolved once: the addresses are judged, and one of those judged is connected to (attacks E4, C4). A session lives
for one document; fetches are minutes apart.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.authn import urls

MAX_BYTES = 256 * 1024
"""Of a metadata or key set document; large ones in the wild are under 32 KiB."""
TIMEOUT_S = 5.0
"""For one document, from resolving to the last byte."""


class FetchFailed(Exception):
    """There is no document. The text says why."""


def tls_context(ca_pem: bytes | None) -> ssl.SSLContext:
    """TLS towards issuers: TLS 1.2 at least, certificate and name checked against `ca_pem` or the system's anchors.

    Not `create_default_context`, which writes session keys to the file named by SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if ca_pem is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        # As DER: the PEM reader of `ssl` wants ASCII throughout, comments between certificates included.
        anchors = x509.load_pem_x509_certificates(ca_pem)
        context.load_verify_locations(cadata=b"".join(anchor.public_bytes(Encoding.DER) for anchor in anchors))
    return context


async def fetch(url: urls.FetchUrl, context: ssl.SSLContext) -> bytes:
    """The body at `url`.

    Raises: FetchFailed for whatever is not a complete 200 within the bounds.
    """
    resolver = _JudgedResolver(url)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=1, ssl=context)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"},
    )
    try:
        async with session.get(url.text, allow_redirects=False) as response:
            return await _body(response)
    except TimeoutError as exc:
        raise FetchFailed(f"{url.text}: no answer within {TIMEOUT_S} s") from exc
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise FetchFailed(f"{url.text}: {exc}") from exc
    finally:
        # Nothing more is wanted of this connection: cut it instead of waiting for the issuer's goodbye in the background.
        await connector.close(abort_ssl=True)
        await session.close()
        await resolver.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"{response.url}: status {response.status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchFailed(f"{response.url}: compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchFailed(f"{response.url}: larger than {MAX_BYTES} bytes")
    return bytes(body)


class _JudgedResolver(AbstractResolver):
    """The system's resolver, without the addresses that the host of a URL may not stand for."""

    def __init__(self, url: urls.FetchUrl) -> None:
        self._url = url
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        allowed = [entry for entry in found if urls.may_resolve_to(self._url, ipaddress.ip_address(entry["host"]))]
        if not allowed:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} resolves to nothing that may be connected to")
        return allowed

    async def close(self) -> None:
        await self._system.close()
