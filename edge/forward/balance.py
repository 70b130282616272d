"""Which endpoint of a service gets the next request. A decision only; the pool dials.

    round_robin      in turn, each as often as its weight asks, spread evenly over the round
    least_requests   who has the fewest under way for his weight; whose turn it is among equals
    power_of_two     of two drawn by weight, the one with fewer under way: nearly as even, and as cheap with a thousand

A `Rotation` is worked out when something changes (somebody comes, leaves, fails, recovers, warms up), not when a request
asks: a request takes the next entry of a list. Laws:

- Who is draining or left the roster gets nothing. Who is ejected or fails his checks is a last resort for a request that
  could not connect anywhere else, and never comes first.
- In each round everybody who may be asked at all is asked at least once, whatever his weight.
- `max_in_flight` is held by the count of the pool at the moment of the choice, and again when a connection is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import gcd

from edge.errors import Shedding, UpstreamUnreachable
from edge.forward.endpoint import Endpoint
from edge.forward.health import EJECTION, CheckSettings, EjectionSettings


class Policy(Enum):
    """How the next endpoint is found."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUESTS = "least_requests"
    POWER_OF_TWO = "power_of_two"


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """Of one service, for all routes that lead to it."""

    policy: Policy = Policy.ROUND_ROBIN
    slow_start_s: float = 10.0
    max_in_flight: int | None = None
    """Requests under way to the service; None: any number."""
    max_in_flight_each: int | None = None
    """To each of its instances."""
    ejection: EjectionSettings | None = EJECTION
    """None: nobody is ejected."""
    check: CheckSettings | None = None

    def share(self, workers: int) -> BalanceSettings:
        """What each of so many workers may do, so that together they keep the limits; each may have one under way."""
        return replace(
            self,
            max_in_flight=_part(self.max_in_flight, workers),
            max_in_flight_each=_part(self.max_in_flight_each, workers),
        )


def _part(limit: int | None, workers: int) -> int | None:
    return max(1, limit // workers) if limit is not None else None


DEFAULT = BalanceSettings()

MAX_TURNS = 1000
"""Entries of one round. Weights that would need more are rounded, and nobody's to nothing."""

MAX_TRIES = 8
"""Endpoints that one request tries to connect to; each may take the time of a dial."""


def spread(weights: Sequence[int]) -> list[int]:
    """One round: the index of each weight (≥ 1) as often as it asks, spread evenly. [3, 1] → [0, 0, 1, 0]."""
    divisor = gcd(*weights)
    shares = [weight // divisor for weight in weights]
    if len(set(shares)) <= 1:
        return list(range(len(shares)))
    total = sum(shares)
    if total > MAX_TURNS:
        shares = [max(1, round(share * MAX_TURNS / total)) for share in shares]
    turns = ((2 * turn + 1) / share for share in shares for turn in range(share))
    indices = (index for index, share in enumerate(shares) for _ in range(share))
    return [index for _, index in sorted(zip(turns, indices, strict=True))]


NEVER = -1
"""A generation that the roster never has."""


class Turns:
    """Whose turn it is at one upstream: what every request looks at, apart from what only a change does.

    With a thousand services a choice costs what the processor has to fetch for it, more than what it does: these four words
    and what every object has fill one line of the cache, and the match of a route holds them. Made with its `Rotation`, and
    laid out by it.
    """

    __slots__ = ("_at", "_rotation", "_round", "generation")

    def __init__(self, rotation: Rotation) -> None:
        self.generation = NEVER
        """Of the roster, when it was last held against it: where that is another one, `Fleet.arranged` is to be asked."""
        self._rotation = rotation
        self._round: tuple[
            tuple[Endpoint, ...], ...
        ] = ()  # what is answered at each turn; empty: it must be worked out
        self._at = 0

    def lay_out(self, plain: tuple[tuple[Endpoint, ...], ...]) -> None:
        """`plain`: one round, where nothing but the turn decides; else empty."""
        self._round = plain
        # It goes on over changes: who begins anew each time would always begin with the same one.
        self._at %= max(1, len(plain))

    def order(self) -> tuple[Endpoint, ...]:
        """Where this request may go, best first. Raises: as `Rotation.order`."""
        answers = self._round
        if not answers:
            return self._rotation.order()
        at = self._at
        self._at = at + 1 if at + 1 < len(answers) else 0
        return answers[at]


class Rotation:
    """The endpoints of one upstream. Owner: the fleet, one per worker; no lock, one event loop."""

    __slots__ = (
        "_draw",
        "_is_limited",
        "_orders",
        "_peers",
        "_settings",
        "_spare",
        "_turn",
        "_turns",
        "_usable",
        "members",
        "registered",
        "service",
        "turns",
    )

    def __init__(self, service: str, peers: Collection[Endpoint], draw: Callable[[], float]) -> None:
        """`peers`: all endpoints of the service that are known, those of other routes and leaving ones included; `draw`
        gives numbers from 0 to below 1."""
        self.turns = Turns(self)
        """What requests ask; always the same object."""
        self.service = service
        self.members: tuple[Endpoint, ...] = ()
        """Who may get new requests, as far as file and roster go."""
        self.registered: object = None
        """The roster's tuple that `members` were made of; None before that."""
        self._peers = peers
        self._draw = draw
        self._settings = DEFAULT
        self._is_limited = False
        self._usable: tuple[Endpoint, ...] = ()
        self._spare: tuple[Endpoint, ...] = ()
        self._turns: tuple[tuple[Endpoint, ...], ...] = ()  # one round: what is answered at each turn
        self._turn = 0
        self._orders: dict[Endpoint, tuple[Endpoint, ...]] = {}

    def arrange(self, settings: BalanceSettings, now_s: float) -> None:
        """Work it out: weights, who may be asked, and the answers."""
        self._settings = settings
        members = self.members
        passing = [each for each in members if not each.health.is_failing] or list(members)
        self._usable = tuple(each for each in passing if not each.health.is_ejected) or tuple(passing)
        chosen = set(self._usable)
        self._spare = tuple(each for each in members if each not in chosen)
        for each in members:
            each.load_weight = max(1, each.weight) * each.health.tenths(now_s, settings.slow_start_s)
        weights = [each.load_weight for each in self._usable]
        self._orders = {each: self._from(at) for at, each in enumerate(self._usable)}
        self._turns = tuple(self._orders[self._usable[index]] for index in spread(weights)) if weights else ()
        self._turn %= max(1, len(self._turns))
        self._is_limited = settings.max_in_flight is not None or settings.max_in_flight_each is not None
        is_plain = settings.policy is Policy.ROUND_ROBIN or len(members) == 1
        self.turns.lay_out(self._turns if is_plain and not self._is_limited else ())

    def _from(self, at: int) -> tuple[Endpoint, ...]:
        """Behind the first come those who would be asked next, and at last those who should not be."""
        usable = self._usable
        return (*usable[at : at + MAX_TRIES], *usable[: min(at, MAX_TRIES)], *self._spare[:MAX_TRIES])[:MAX_TRIES]

    def may_eject(self, endpoint: Endpoint, limit: int) -> bool:
        """Whether the others can do without it; `limit` is how many may be ejected at a time."""
        others = [each for each in self.members if each is not endpoint]
        ejected = sum(each.health.is_ejected for each in others)
        return ejected < limit and any(not (each.health.is_ejected or each.health.is_failing) for each in others)

    def order(self) -> tuple[Endpoint, ...]:
        """Where this request may go, best first.

        Raises:
            UpstreamUnreachable: there is nobody; then 502.
            Shedding: as much as allowed is under way; then 503.
        """
        if not self._turns:
            raise UpstreamUnreachable("no-endpoint", self.service)
        if self._is_limited:
            return self._with_room()
        return self._pick()

    def full(self, endpoint: Endpoint) -> str | None:
        """The limit that one more request there would break, if any."""
        if self._is_service_full():
            return "service-in-flight"
        limit = self._settings.max_in_flight_each
        return "instance-in-flight" if limit is not None and endpoint.in_flight >= limit else None

    def _is_service_full(self) -> bool:
        limit = self._settings.max_in_flight
        return limit is not None and sum(each.in_flight for each in self._peers) >= limit

    def _with_room(self) -> tuple[Endpoint, ...]:
        if self._is_service_full():
            raise Shedding("service-in-flight", self.service)
        order = self._pick()
        limit = self._settings.max_in_flight_each
        if limit is None or order[0].in_flight < limit:
            return order
        free = sorted((each for each in self._usable if each.in_flight < limit), key=_load)
        if not free:
            raise Shedding("instance-in-flight", self.service)
        return (*free, *self._spare)[:MAX_TRIES]

    def _pick(self) -> tuple[Endpoint, ...]:
        """By the policy."""
        if self._settings.policy is Policy.POWER_OF_TWO:
            return self._of_two(self._turns)
        turns, turn = self._turns, self._turn
        self._turn = turn + 1 if turn + 1 < len(turns) else 0
        order = turns[turn]
        first = order[0]
        if first.in_flight and self._settings.policy is Policy.LEAST_REQUESTS:
            for each in self._usable:
                if each.in_flight * first.load_weight < first.in_flight * each.load_weight:
                    first = each
            return self._orders[first]
        return order

    def _of_two(self, turns: tuple[tuple[Endpoint, ...], ...]) -> tuple[Endpoint, ...]:
        """Drawn from the round, so by weight; with none or as many under way at both it is the first."""
        count = len(turns)
        at = int(self._draw() * count)
        order = turns[at]
        if count > 1:
            other = turns[(at + 1 + int(self._draw() * (count - 1))) % count]
            first, second = order[0], other[0]
            if second.in_flight * first.load_weight < first.in_flight * second.load_weight:
                return other
        return order


def _load(endpoint: Endpoint) -> float:
    return endpoint.in_flight / endpoint.load_weight
