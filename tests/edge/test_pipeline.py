"""The line over one head that comes again and again by the same bytes: what was settled must end with what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from edge.accept.shed import Shed, ShedSettings
from edge.authn.chain import Authenticator
from edge.authn.io_keyset import KeySets
from edge.authz import policies
from edge.authz.evaluate import Authorizer
from edge.authz.scan import PolicySource
from edge.authz.schema import TEXT
from edge.errors import CredentialRejected, EdgeError, Forbidden, Misdirected, QuotaExceeded
from edge.forward.io_proof import UpstreamTrust
from edge.limit.limiter import Asked, Limiter
from edge.limit.rules import KeyPart, LimitSettings
from edge.model.decision import Admission
from edge.model.http import Request
from edge.model.identity import Peer
from edge.pipeline import Gateway, Walk, decide
from edge.routing import table
from tests.edge.authn.simulator import MINTER, PEER, KeySourceInMemory, bearer, issuer, route
from tests.edge.limit.test_limiter import FarSide

NOW_NS = 1_700_000_000 * 10**9
READ = (
    '@id("read") permit (principal is Edge::User, action, resource) when { principal.scopes.contains("orders:read") };'
)


class House:
    """A gateway of real parts around key sets and counters in memory, and one head that is kept by its bytes."""

    def __init__(
        self, policy: str = READ, quota: int = 1_000_000, burst: int = 100, key: tuple[KeyPart, ...] = ("subject",)
    ) -> None:
        self.key = key
        self.keys = KeySourceInMemory()
        self.far = FarSide()
        self.gateway = self.build(policy, quota, burst)

    def build(self, policy: str = READ, quota: int = 1_000_000, burst: int = 100) -> Gateway:
        at = route("jwt")
        bundle = policies.compile(
            [PolicySource("p.cedar", policy.encode())],
            schema=PolicySource("s", TEXT.encode()),
            services={"orders": "spiffe://mesh.internal/svc/orders"},
            routes=[at],
        )
        return Gateway(
            routes=table.compile([at], ["localhost"]),
            authenticator=Authenticator([issuer()], self.keys),
            authorizer=Authorizer(bundle),
            limiter=Limiter([LimitSettings("l", quota, 60, key=self.key)], self.far),
            shed=Shed(ShedSettings(failed_checks_per_s=1, failed_checks_burst=burst)),
            trust=cast(UpstreamTrust, None),
            key_sets=cast(KeySets, None),
            bundle_hash="",
            problem_base="",
            security_fields=(),
        )

    def ask(self, request: Request, peer: Peer = PEER, now_ns: int = NOW_NS) -> Admission:
        walk = Walk(request, peer)
        step = decide(self.gateway, walk, now_ns, self.far.now_ns)
        if isinstance(step, Asked):
            with pytest.raises(StopIteration):
                next(step.fetch().__await__())
            step = decide(self.gateway, walk, now_ns, self.far.now_ns)
        assert isinstance(step, Admission)
        assert walk.permit is step.permit
        return step


def kept(scope: str = "orders:read", lifetime_s: int = 600) -> Request:
    """A head that `front/heads` would remember."""
    issued_s = NOW_NS // 10**9
    request = bearer(MINTER.good("alice", scope=scope, iat=issued_s, nbf=issued_s, exp=issued_s + lifetime_s))
    request.memo = {}
    return request


def test_the_same_bytes_are_permitted_once_and_admitted_each_time() -> None:
    house, request = House(), kept()
    for _ in range(16):  # the lease grows; as long as it is asked for, each request has a permit of its own
        house.ask(request)
    answers = [house.ask(request) for _ in range(5)]
    assert len({id(answer.permit) for answer in answers}) == 1
    assert len({id(answer) for answer in answers}) == 5


def _expire(house: House) -> dict[str, object]:
    return {"now_ns": NOW_NS + 601 * 10**9}


def _withdraw(house: House) -> dict[str, object]:
    for key in house.keys.sets[issuer().issuer].keys:
        key.valid_until_ns = 0
    house.keys.sets = {}
    return {}


def _set_back(house: House) -> dict[str, object]:
    return {"now_ns": NOW_NS - 60 * 10**9}


def _other_name(house: House) -> dict[str, object]:
    return {"peer": replace(PEER, sni="other.example")}


def _bad_neighbour(house: House) -> dict[str, object]:
    for _ in range(200):
        house.gateway.shed.failed(PEER.prefix, house.far.now_ns)
    return {}


def _other_policy(house: House) -> dict[str, object]:
    house.gateway = house.build(READ.replace("orders:read", "orders:write"))
    return {}


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_expire, CredentialRejected),
        (_withdraw, CredentialRejected),
        (_set_back, CredentialRejected),
        (_other_name, Misdirected),
        (_bad_neighbour, QuotaExceeded),
        (_other_policy, Forbidden),
    ],
)
def test_what_was_settled_ends_with_what_it_rests_on(
    change: Callable[[House], dict[str, object]], refusal: type[EdgeError]
) -> None:
    house, request = House(), kept()
    house.ask(request)
    house.ask(request)
    with pytest.raises(refusal):
        house.ask(request, **change(house))  # type: ignore[arg-type]


def test_a_quota_ends_for_bytes_that_came_before() -> None:
    house, request = House(quota=7), kept()
    for _ in range(7):
        house.ask(request)
    with pytest.raises(QuotaExceeded):
        house.ask(request)
    assert house.far.used.total() == 7


def test_a_quota_by_address_is_of_each_address_for_bytes_that_came_before() -> None:
    house, request = House(quota=3, key=("ip",)), kept()
    for number in range(3):
        peer = replace(PEER, ip=f"192.0.2.{number}", prefix=f"192.0.2.{number}")
        for _ in range(3):
            house.ask(request, peer)
        with pytest.raises(QuotaExceeded):
            house.ask(request, peer)
    assert sorted(house.far.used.values()) == [3, 3, 3]


@pytest.mark.parametrize(
    ("policy", "yes", "no"),
    [
        (
            '@id("p") permit (principal, action, resource) when { context.conn.ip.isInRange(ip("192.0.2.0/24")) };',
            {"peer": PEER},
            {"peer": replace(PEER, ip="198.51.100.1", prefix="198.51.100.1")},
        ),
        (
            '@id("p") permit (principal, action, resource) when { context has token && context.token.age < 60 };',
            {"now_ns": NOW_NS + 59 * 10**9},
            {"now_ns": NOW_NS + 60 * 10**9},
        ),
        (
            '@id("p") permit (principal, action, resource) when { !context.conn.mtls };',
            {"peer": PEER},
            {"peer": replace(PEER, spiffe_id="spiffe://mesh.internal/svc/orders")},
        ),
    ],
)
def test_what_the_bytes_do_not_decide_is_decided_each_time(
    policy: str, yes: dict[str, object], no: dict[str, object]
) -> None:
    house, request = House(policy), kept()
    for _ in range(2):
        house.ask(request, **yes)  # type: ignore[arg-type]
        with pytest.raises(Forbidden):
            house.ask(request, **no)  # type: ignore[arg-type]


def test_a_certificate_of_the_connection_is_asked_first_even_for_bytes_that_came_before() -> None:
    house, request = House(), kept()
    before = house.ask(request)
    again = house.ask(request, peer=replace(PEER, spiffe_id="spiffe://mesh.internal/svc/orders"))
    assert again.permit is not before.permit
