"""Who calls: the step from `Request` to `Principal`.

`chain.Authenticator` asks the methods of a route in the route's order. A method is one file here and one line in `METHODS`;
what it answers is fixed in `method.py`. Verified credentials are remembered (`cache`), key sets are fetched by `io_keyset`,
and everything else is pure: the clock, the keys and the request come in as arguments.

A route without methods is public: the principal is `ANONYMOUS` and credentials are not looked at, so that a bad token can
neither open nor break it; `forward` does not pass them on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge.authn.attached import AttachedMethod
from edge.authn.jwt import JwtMethod
from edge.authn.method import Materials, Method
from edge.authn.mtls import MtlsMethod

METHODS: Mapping[str, Callable[[Materials], Method]] = {
    "jwt": JwtMethod,
    "mtls": MtlsMethod,
    "attached": AttachedMethod,
}
"""Name in a route's `auth:` → how to build the method."""

PUBLIC_METHODS = frozenset(METHODS) - {"mtls", "attached"}
"""What routes.yaml may name: the public listener asks nobody for a certificate, so others would refuse everybody there."""
