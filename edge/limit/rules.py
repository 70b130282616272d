"""What a limit says: to which requests it applies, by what they are counted, how many are allowed in which time.

A limit in `policies/limits.yaml`:

    - {name: orders-subject, match: {service: orders}, key: [subject], rate: 100/minute,
       strategy: fixed-window, on_store_failure: closed}

Every limit that matches a route applies to each of its requests, in the order of the file. Laws of this room:

- A limit without `match` applies to all routes; with `service` and `route` both must fit.
- Key parts are taken from what was *verified*, never from a header. A part that the caller lacks is replaced by the next
  narrower one it has, so that strangers never share one bucket by accident: no tenant or client → the subject; an
  anonymous caller has no subject → its address prefix. Parts are tagged: a tenant named like a subject is another key.
- A key is a digest over an unambiguous encoding (JSON), so no choice of names makes two callers collide.
- Changing the rate or the strategy of a limit starts it afresh: both are part of the key.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal, get_args

import limits as limits_package

from edge.model.identity import Peer, Principal
from edge.model.route import Route

Strategy = Literal["fixed-window", "moving-window", "sliding-window"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

OnStoreFailure = Literal["closed", "local"]
ON_STORE_FAILURE: tuple[OnStoreFailure, ...] = get_args(OnStoreFailure)

KeyPart = Literal["subject", "issuer", "tenant", "client", "ip", "route", "service"]
KEY_PARTS: tuple[KeyPart, ...] = get_args(KeyPart)

MAX_QUOTA = 10**12
MAX_WINDOW_S = 10 * 366 * 86_400
_RATE = re.compile(r"[0-9]{1,13} ?(?:/|per) ?(?:[0-9]{1,9} ?)?[a-z]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BadSetting:
    """What is wrong with one value and what to write instead; `config` adds the place."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Rate:
    """`quota` requests in `window_s` seconds."""

    quota: int
    window_s: int


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """One entry of limits.yaml."""

    name: str
    """Unique; seen by the downstream in the RateLimit fields, so `is_limit_name` holds for it."""
    quota: int
    window_s: int
    service: str | None = None
    """Applies to routes of this service only; None = of every service."""
    route: str | None = None
    """Applies to the route of this name only; None = to every route."""
    key: tuple[KeyPart, ...] = ("subject",)
    """What is counted apart from each other; empty = all requests together."""
    strategy: Strategy = "fixed-window"
    on_store_failure: OnStoreFailure = "closed"
    """`closed`: 503 while the store is away. `local`: each gateway allows its share, and says that it is degraded."""

    def applies_to(self, route: Route) -> bool:
        return self.service in (None, route.upstream.service) and self.route in (None, route.name)


def is_limit_name(text: str) -> bool:
    """A name that may stand in a header field and in a store key as it is: letters, digits, `._-`, up to 64."""
    return _NAME.fullmatch(text) is not None


def parse_rate(text: str) -> Rate | BadSetting:
    """Read `100/minute`, `5 per 2 hours`, `10000000/second` as the package `limits` does, but one rate only."""
    remedy = "write AMOUNT/PERIOD, such as 100/minute, 5/second or 1000/2 hours"
    try:
        items = limits_package.parse_many(text) if _RATE.fullmatch(text) else []
    except ValueError:  # an unknown period
        items = []
    if len(items) != 1:
        return BadSetting(f'expected a rate, got "{text[:40]}"', remedy)
    rate = Rate(items[0].amount, items[0].get_expiry())
    if not 1 <= rate.quota <= MAX_QUOTA:
        return BadSetting(f"the amount {rate.quota} is not between 1 and {MAX_QUOTA}", remedy)
    # `limits` reads a multiple of 0 as 1; what the file says must be what happens.
    if re.search(r"(?:/|per) ?0", text) or not 1 <= rate.window_s <= MAX_WINDOW_S:
        return BadSetting("the period is not between 1 second and 10 years", remedy)
    return rate


def key_parts(limit: LimitSettings, principal: Principal, route: Route, peer: Peer) -> list[list[str]]:
    """The tagged values that `limit` counts by, one list per part: `[["subject", issuer, subject]]`."""
    found: list[list[str]] = []
    for part in limit.key:
        if part == "route":
            found.append(["route", route.name])
        elif part == "service":
            found.append(["service", route.upstream.service])
        elif part == "issuer" and not principal.is_anonymous:
            found.append(["issuer", principal.issuer])
        elif part == "tenant" and principal.tenant is not None:
            found.append(["tenant", principal.issuer, principal.tenant])
        elif part == "client" and principal.client_id is not None:
            found.append(["client", principal.issuer, principal.client_id])
        elif part == "ip" or principal.is_anonymous:
            found.append(["ip", peer.prefix])
        else:
            found.append(["subject", principal.issuer, principal.subject])
    return found


def counts_by_address(limit: LimitSettings, principal: Principal) -> bool:
    """Whether the key depends on the connection, not on principal and route alone."""
    by_caller = {"subject", "issuer", "tenant", "client"}
    return "ip" in limit.key or (principal.is_anonymous and not by_caller.isdisjoint(limit.key))


def store_key(limit: LimitSettings, parts: list[list[str]]) -> str:
    """The name of one counter in the store.

    The braces are a Valkey Cluster hash tag: all counters live in one slot, because several limits of one request are
    taken in one script, all or none. Leases make that slot's load small. Values are hashed: the store needs no subjects.
    """
    facts = [limit.name, limit.strategy, limit.quota, limit.window_s, parts]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=18).hexdigest()
    return f"{{edge:limit}}:{limit.name}:{digest}"
