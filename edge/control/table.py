"""The control plane's routes, listener by listener: one row here and one handler is all that a new one takes.

A row becomes a route like any other (`assemble.build_control`): it is matched, authenticated, authorized, limited, forwarded
to this process and recorded by the same line. Whoever gets to a handler was admitted; the handler is told by `scope`:

    request.scope["edge.principal"]   who (model.identity.Principal); authn/ made it, no header can
    request.scope["edge.peer"]        the connection; `chain` holds a client's certificate and what came with it, DER
                                      (in PEM: scope["extensions"]["tls"]["client_cert_chain"], as ASGI has it)
    request.scope["edge.params"]      what the path captured
    request.scope["edge.decision"]    the decision id, X-Request-Id of the answer

A handler refuses by raising an `EdgeError`: it becomes the problem document of its row, and the reason in the log.

What may be called is said by `policy`, Cedar text that names its own route. It is compiled by the same compiler, against the
same schema, with the services of services.yaml known, and evaluated by the same evaluator; default deny holds. It stands in
the code and in no file, because who may enrol or register is a promise of the gateway and not of a deployment: an operator's
`permit` for everything must not open it (decision 0030). A row whose policy does not reach it is refused to everybody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from quart import Response

from edge.control import est, facts, registration, word

Handler = Callable[..., Awaitable[Response]]
"""Called with the worker's `Inside` and, by name, what the path captured."""


@dataclass(frozen=True, slots=True)
class ControlRoute:
    """One row."""

    name: str
    """Of the route and of its policy: in the log and the metrics, where `edge-` tells it from an operator's routes."""
    path: str
    """A pattern as in routes.yaml, without wildcards; `{name}` is handed to the handler."""
    methods: tuple[str, ...]
    handle: Handler
    policy: str
    """Cedar; its `@id` is the row's name."""
    auth: tuple[str, ...] = ()
    """Methods of `authn`, in order; empty: nobody is asked who he is, and `open_because` says why."""
    open_because: str = ""
    forward_token: bool = False
    """The handler is shown `Authorization`."""
    max_body_bytes: int = 65_536
    timeout_s: float = 10.0


_READ_BY_ANYBODY = """\
@id("{name}")
permit (principal is Edge::Anonymous, action in Edge::Action::"read", resource == Edge::Route::"{name}");
"""
_WRITTEN_BY_ANYBODY = """\
@id("{name}")
permit (principal is Edge::Anonymous, action in Edge::Action::"write", resource == Edge::Route::"{name}");
"""
_KNOWN = "principal is Edge::Service || principal is Edge::Gateway || principal is Edge::Operator"
_READ_BY_CERTIFIED = f"""\
@id("{{name}}")
permit (principal, action in Edge::Action::"read", resource == Edge::Route::"{{name}}") when {{{{ {_KNOWN} }}}};
"""
_WRITTEN_BY_CERTIFIED = f"""\
@id("{{name}}")
permit (principal, action in Edge::Action::"write", resource == Edge::Route::"{{name}}") when {{{{ {_KNOWN} }}}};
"""
_READ_BY_GATEWAYS = """\
@id("{name}")
permit (principal is Edge::Gateway, action in Edge::Action::"read", resource == Edge::Route::"{name}");
"""
_WRITTEN_BY_GATEWAYS = """\
@id("{name}")
permit (principal is Edge::Gateway, action in Edge::Action::"write", resource == Edge::Route::"{name}");
"""
_WRITTEN_BY_SERVICES = """\
@id("{name}")
permit (principal is Edge::Service, action in Edge::Action::"write", resource == Edge::Route::"{name}");
"""
_ON_THIS_MACHINE = "the admin listener is reached from this machine only, and answers facts, not secrets"


def _fact(name: str, path: str, handle: Handler) -> ControlRoute:
    policy = _READ_BY_ANYBODY.format(name=name)
    return ControlRoute(name, path, ("GET", "HEAD"), handle, policy, open_because=_ON_THIS_MACHINE)


ROUTES: Mapping[str, tuple[ControlRoute, ...]] = {
    "admin": (
        _fact("edge-status", "/v1/status", facts.show_status),
        _fact("edge-routes", "/v1/routes", facts.show_routes),
        _fact("edge-services", "/v1/services", facts.show_services),
        _fact("edge-metrics", "/metrics", facts.show_metrics),
    ),
    "enrol": (
        ControlRoute(
            "edge-est-cacerts",
            "/.well-known/est/cacerts",
            ("GET", "HEAD"),
            est.cacerts,
            _READ_BY_ANYBODY.format(name="edge-est-cacerts"),
            open_because="whom to trust is public, and a client that asks has no identity yet (RFC 7030 §4.1)",
        ),
        ControlRoute(
            "edge-spiffe-bundle",
            "/v1/bundle",
            ("GET", "HEAD"),
            est.spiffe_bundle,
            _READ_BY_ANYBODY.format(name="edge-spiffe-bundle"),
            open_because="whom to trust is public; other trust domains fetch it without an identity of ours",
        ),
        ControlRoute(
            "edge-est-simpleenroll",
            "/.well-known/est/simpleenroll",
            ("POST",),
            est.simpleenroll,
            _WRITTEN_BY_ANYBODY.format(name="edge-est-simpleenroll"),
            open_because="the one-time token is judged by the authority, in the transaction that spends it",
            forward_token=True,
            timeout_s=15.0,
        ),
    ),
    "services": (
        ControlRoute(
            "edge-est-cacerts",
            "/.well-known/est/cacerts",
            ("GET", "HEAD"),
            est.cacerts,
            _READ_BY_CERTIFIED.format(name="edge-est-cacerts"),
            auth=("mtls",),
        ),
        ControlRoute(
            "edge-spiffe-bundle",
            "/v1/bundle",
            ("GET", "HEAD"),
            est.spiffe_bundle,
            _READ_BY_CERTIFIED.format(name="edge-spiffe-bundle"),
            auth=("mtls",),
        ),
        ControlRoute(
            "edge-est-simplereenroll",
            "/.well-known/est/simplereenroll",
            ("POST",),
            est.simplereenroll,
            _WRITTEN_BY_CERTIFIED.format(name="edge-est-simplereenroll"),
            auth=("mtls",),
            timeout_s=15.0,
        ),
        ControlRoute(
            "edge-est-listener",
            "/.well-known/est/public/simpleenroll",
            ("POST",),
            est.enrol_listener,
            _WRITTEN_BY_GATEWAYS.format(name="edge-est-listener"),
            auth=("mtls",),
            timeout_s=15.0,
        ),
        ControlRoute(
            "edge-authority-word",
            "/v1/authority/word",
            ("GET",),
            word.authority_word,
            _READ_BY_GATEWAYS.format(name="edge-authority-word"),
            auth=("mtls",),
            timeout_s=20.0,
        ),
        ControlRoute(
            "edge-authority-revocations",
            "/v1/authority/revocations",
            ("GET",),
            word.revocations,
            _READ_BY_CERTIFIED.format(name="edge-authority-revocations"),
            auth=("mtls",),
        ),
        ControlRoute(
            "edge-authority-bundle",
            "/v1/authority/bundle",
            ("GET",),
            word.trusted_bundle,
            _READ_BY_CERTIFIED.format(name="edge-authority-bundle"),
            auth=("mtls",),
        ),
        ControlRoute(
            "edge-register",
            "/v1/services/{service}/instances/{instance}",
            ("PUT", "DELETE"),
            registration.handle,
            _WRITTEN_BY_SERVICES.format(name="edge-register"),
            auth=("mtls",),
            timeout_s=20.0,
        ),
    ),
}
"""Listener → its routes."""
