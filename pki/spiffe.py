"""SPIFFE IDs: one hand-written parser, compared byte for byte.

    spiffe://mesh.internal/svc/orders
             ^ trust domain ^ path: /svc/orders     role: svc    name: orders

No general URI parser touches an identity: it would lower-case, decode or re-order, and two spellings of one name are
how an impostor passes (attack P15). What is accepted is printed back exactly; there is no normal form to compute.
Rules: SPIFFE-ID standard §2; trust domain `[a-z0-9._-]{1,255}`, path segments `[A-Za-z0-9._-]+`, neither `.` nor `..`,
no empty segment, so no trailing slash; no port, user, query, fragment or percent escape; at most 2048 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pki.errors import SpiffeIdError

Role = Literal["svc", "gw", "op"]
ROLES: tuple[Role, ...] = ("svc", "gw", "op")
"""First path segments that mean something here: services, gateways, operators."""

_MAX_BYTES = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A parsed SPIFFE ID. Built by `parse` and `of`; equal exactly when the texts are equal."""

    trust_domain: str
    path: str
    """Empty (the trust domain's own ID) or starts with `/`."""

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read one SPIFFE ID.

        Raises:
            SpiffeIdError: anything but the one accepted spelling.
        """
        if len(text) > _MAX_BYTES:
            raise SpiffeIdError(f"longer than {_MAX_BYTES} bytes")
        if not text.startswith(_SCHEME):
            raise SpiffeIdError("does not start with spiffe://")
        trust_domain, slash, rest = text[len(_SCHEME) :].partition("/")
        check_trust_domain(trust_domain)
        if slash:
            for segment in rest.split("/"):
                if segment in {"", ".", ".."} or not _SEGMENT.match(segment):
                    raise SpiffeIdError(f"path segment {segment!r} is empty, a dot segment, or outside [A-Za-z0-9._-]")
        return cls(trust_domain, slash + rest)

    @classmethod
    def of(cls, trust_domain: str, role: Role, name: str) -> SpiffeId:
        """The ID of one service, gateway or operator; `name` is a DNS label, so that it can also be a host name.

        Raises:
            SpiffeIdError: the trust domain or the name is not acceptable.
        """
        check_trust_domain(trust_domain)
        if not is_name(name):
            raise SpiffeIdError(f"name {name!r} is not a label: a-z, 0-9 and inner hyphens, at most 63")
        return cls(trust_domain, f"/{role}/{name}")

    @property
    def role(self) -> Role | None:
        """`svc`, `gw` or `op` when the path is exactly `/<role>/<name>`; None for any other shape."""
        segments = self.path.split("/")
        if len(segments) == 3:
            for role in ROLES:
                if segments[1] == role:
                    return role
        return None

    @property
    def name(self) -> str:
        """The last path segment; empty for the trust domain's own ID."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def is_name(text: str) -> bool:
    """Is this a name that `SpiffeId.of` takes for a service, gateway or operator?"""
    return _NAME.match(text) is not None


def check_trust_domain(text: str) -> None:
    """Accept a trust domain name.

    Raises:
        SpiffeIdError: empty, longer than 255, or outside `[a-z0-9._-]`.
    """
    if not _TRUST_DOMAIN.match(text):
        raise SpiffeIdError(f"trust domain {text!r} is empty, too long, or outside [a-z0-9._-]")
