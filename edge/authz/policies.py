"""Policy files → one `PolicyBundle`: parsed, validated strictly, named, linted, sliced. Everything that can be known to be
wrong with a policy is found here, at load, because at run time Cedar skips a policy that errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.authz.scan import PolicySource
from edge.model.route import Route

__all__ = ["PolicyBundle", "PolicySource", "compile"]


@dataclass(frozen=True, slots=True, eq=False)
class PolicyBundle:
    """All policies of a configuration, ready to be asked. Immutable; holds native handles, so it cannot be pickled."""


def compile(
    sources: Sequence[PolicySource], *, schema: PolicySource, services: Mapping[str, str], routes: Sequence[Route]
) -> PolicyBundle:
    """`services` maps names to SPIFFE IDs.

    Raises:
        ConfigError: with every fault of every file.
    """
    return PolicyBundle()
