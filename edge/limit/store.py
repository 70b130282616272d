"""Which store keeps the windows, and how it is reached: the `store:` line of edge.yaml as a value.

Accepted spellings (`redis` may be written for `valkey` everywhere; a trailing `s` of the scheme means TLS):

    unix:///run/valkey/valkey.sock?db=0
    valkey://127.0.0.1:6379/0
    valkeys://user:password@store.internal:6380/0?ssl_ca_certs=/etc/edge/store-ca.pem
    valkeys+cluster://user:password@n1.internal:6380,n2.internal:6380
    valkeys+sentinel://user:password@s1.internal:26380,s2.internal:26380/mymaster/0

Law: without TLS only to a unix socket or to loopback. TLS always verifies the chain and the name; no option of the URL
weakens that (client libraries read `ssl_cert_reqs=none` from a URL; here an unknown option is a fault).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from edge.limit.rules import BadSetting

Topology = Literal["single", "cluster", "sentinel"]
Address = tuple[str, int]
_SCHEME = re.compile(r"(?:valkey|redis)(s?)(?:\+(cluster|sentinel))?")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_REMEDY = "write embedded, unix:///PATH, valkeys://HOST:PORT, valkeys+cluster://… or valkeys+sentinel://…/MASTER"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How to reach the store. `StoreSettings(socket_path=…)` is the embedded one."""

    socket_path: str | None = None
    """Unix socket; None = `addresses`. At most 107 bytes, as the system's limit is."""
    addresses: tuple[Address, ...] = ()
    topology: Topology = "single"
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    master: str = ""
    """Name of the master that the sentinels watch."""
    ca_file: str | None = None
    """Anchors of the store's certificate; None = the system's."""
    certificate_file: str | None = None
    key_file: str | None = None
    timeout_s: float = 0.5
    """For the connection and for each answer. A request waits no longer than this for its quota."""
    min_replicas: int = 1
    """Workers of this gateway; the share of a `local` limit is never computed with fewer replicas."""


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_store(url: str) -> StoreSettings | BadSetting:
    """Read the `store:` line; `embedded` is the caller's to know."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        return BadSetting("the store's URL cannot be read", _REMEDY)
    if parts.fragment:
        return BadSetting("the store's URL has a fragment", _REMEDY)
    if parts.scheme == "unix":
        return _unix(parts.netloc, unquote(parts.path), options)
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None:
        return BadSetting(f'unknown kind of store "{parts.scheme}"', _REMEDY)
    unknown = sorted(set(options) - set(_FILES))
    if unknown:
        return BadSetting(
            f'unknown option "{unknown[0]}" in the store\'s URL', f"only {', '.join(_FILES)} may stand there"
        )
    return _network(parts.netloc, parts.path, options, tls=bool(scheme[1]), kind=scheme[2])


def _unix(netloc: str, path: str, options: dict[str, str]) -> StoreSettings | BadSetting:
    db = options.pop("db", "0")
    if netloc or not path.startswith("/") or options or not _is_small_number(db):
        return BadSetting("the store's socket cannot be read", "write unix:///PATH or unix:///PATH?db=NUMBER")
    if len(path.encode()) > 107:
        return BadSetting(
            f"the socket path has {len(path.encode())} bytes, the system allows 107", "use a shorter path"
        )
    return StoreSettings(socket_path=path, db=int(db))


def _network(
    netloc: str, path: str, options: dict[str, str], *, tls: bool, kind: str | None
) -> StoreSettings | BadSetting:
    credentials, _, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    addresses = [_address(text, 26379 if kind == "sentinel" else 6379) for text in hosts.split(",")]
    segments = [unquote(segment) for segment in path.split("/")[1:] if segment]
    master = segments.pop(0) if kind == "sentinel" and segments else ""
    db = segments.pop(0) if segments and kind != "cluster" else "0"
    known = [address for address in addresses if address is not None]
    if len(known) < len(addresses) or (kind is None and len(known) != 1):
        return BadSetting("the store's address cannot be read", _REMEDY)
    if segments or not _is_small_number(db) or bool(master) != (kind == "sentinel"):
        return BadSetting(f'the path "{path}" of the store\'s URL cannot be read', _REMEDY)
    if not tls and (options or not all(is_loopback(host) for host, _ in known)):
        return BadSetting("a store beyond loopback without TLS", "use the scheme with s, such as valkeys://")
    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        return BadSetting("ssl_certfile and ssl_keyfile go together", "write both or none")
    return StoreSettings(
        addresses=tuple(known),
        topology="cluster" if kind == "cluster" else "sentinel" if kind == "sentinel" else "single",
        tls=tls,
        db=int(db),
        username=unquote(user) or None,
        password=unquote(password) or None,
        master=master,
        ca_file=options.get("ssl_ca_certs"),
        certificate_file=options.get("ssl_certfile"),
        key_file=options.get("ssl_keyfile"),
    )


def _address(text: str, default_port: int) -> Address | None:
    """`host`, `host:port`, `[v6]:port` → (host, port); None when it is none of them."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text, re.ASCII)
    if match is None or not 0 < int(match[2] or default_port) < 65536:
        return None
    return match[1].strip("[]"), int(match[2] or default_port)


def _is_small_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) is not None
