"""Does the policy allow this certificate? One answer for `issue-cert.py` and `edge ca token`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from edge.config.issuing import IssuingPolicy
from pki.errors import IssueRefused, SpiffeIdError
from pki.issue import GATEWAY_NAME, LEAF_LIFE, check_life
from pki.spiffe import Role, SpiffeId

ROLES: dict[str, Role] = {"service": "svc", "gateway": "gw", "operator": "op"}
"""As command lines spell them → as SPIFFE paths do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a command line asks for."""

    role: str
    name: str
    dns: tuple[str, ...] = ()
    life: timedelta = LEAF_LIFE

    @property
    def spiffe_role(self) -> Role:
        return ROLES[self.role]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The same, after the policy agreed."""

    role: Role
    spiffe_id: SpiffeId
    dns: tuple[str, ...]


def judge(wish: Wish, policy: IssuingPolicy) -> Allowed:
    """Raises: IssueRefused, with what to do about it."""
    role, name = wish.spiffe_role, wish.name
    try:
        spiffe_id = SpiffeId.of(policy.trust_domain, role, name)
    except SpiffeIdError as error:
        raise IssueRefused("service-name", str(error)) from error
    check_life(wish.life)
    dns = tuple(dict.fromkeys(wish.dns))
    for each in dns:
        if not policy.allows_dns(each):
            suffixes = ", ".join(f".{suffix}" for suffix in policy.dns_suffixes)
            raise IssueRefused("name-space", f"{each} is outside the allowed suffixes: {suffixes}")
    if role == "svc":
        grant = policy.grants.get(name)
        if grant is None:
            raise IssueRefused("unknown-service", _lines_to_add(policy.services_file, name))
        beyond = [each for each in dns if each not in grant.dns]
        if beyond:
            have = ", ".join(grant.dns)
            raise IssueRefused(
                "dns-not-granted", f"{', '.join(beyond)}: {policy.services_file} grants {name} only {have}"
            )
        dns = dns or grant.dns
    if role == "gw":
        if name == GATEWAY_NAME:
            raise IssueRefused(
                "gateway-name", f"{name} is the gateway that holds the CA; give the other one its own name"
            )
        own_name = f"{name}.internal"
        dns = dns or ((own_name,) if policy.allows_dns(own_name) else ())
    return Allowed(role, spiffe_id, dns)


def _lines_to_add(file: str, name: str) -> str:
    return (
        f"{name} is not in {file}; to grant it, have these lines there:\n"
        f"services:\n"
        f"  {name}:\n"
        f"    dns: [{name}.internal]\n"
        f'    may_serve: ["/{name}/**"]'
    )
