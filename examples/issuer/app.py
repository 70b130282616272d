"""The issuer as a Flask application around Authlib's `AuthorizationServer`.

    GET  /.well-known/oauth-authorization-server    metadata (RFC 8414), also under /.well-known/openid-configuration
    GET  /jwks                                      the public keys
    POST /token                                     grant_type=client_credentials, HTTP basic authentication of the client

No token is kept: a JWT carries what there is to know, and lives ten minutes.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc6749.util import list_to_scope, scope_to_list
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response
from joserfc.jwk import ECKey, KeySet

LIFETIME_S = 600


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """What the issuer is started with."""

    issuer: str
    audience: str
    key: ECKey
    clients: Mapping[str, Mapping[str, Any]]
    """Client id → secret, scopes, roles, tenant."""


class Client(ClientMixin):  # type: ignore[misc]  # Authlib has no type information
    """A registered client; it may use the token endpoint with its secret and nothing else."""

    def __init__(self, client_id: str, registration: Mapping[str, Any]) -> None:
        self.client_id = client_id
        self.registration = registration

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        allowed = self.registration.get("scopes", ())
        wanted = allowed if not scope else [name for name in scope_to_list(scope) if name in allowed]
        return str(list_to_scope(wanted))

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(client_secret.encode(), str(self.registration["secret"]).encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return endpoint == "token" and method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class TokenGenerator(JWTBearerTokenGenerator):  # type: ignore[misc]  # Authlib has no type information
    """RFC 9068 tokens signed with ES256 and the name of the key in `kid`."""

    def __init__(self, facts: IssuerFacts) -> None:
        super().__init__(issuer=facts.issuer, alg="ES256", expires_generator=_lifetime)
        self._facts = facts

    def get_jwks(self) -> KeySet:
        # A set, not a key: only then is the `kid` written.
        return KeySet([self._facts.key])

    def get_audiences(self, client: Client, user: Any, scope: str) -> list[str]:
        return [self._facts.audience]

    def get_extra_claims(self, client: Client, grant_type: str, user: Any, scope: str) -> dict[str, Any]:
        return {name: client.registration[name] for name in ("roles", "tenant") if name in client.registration}


def create_app(facts: IssuerFacts) -> Flask:
    """The issuer, ready to be served over TLS at `facts.issuer`."""
    app = Flask("issuer")
    server = AuthorizationServer(
        app,
        query_client=lambda client_id: _client(facts, client_id),
        save_token=lambda token, request: None,
    )
    server.register_grant(grants.ClientCredentialsGrant)
    server.register_token_generator("default", TokenGenerator(facts))

    @app.get("/jwks")
    def jwks() -> Response:
        return _json({"keys": [facts.key.as_dict(private=False)]})

    @app.get("/.well-known/oauth-authorization-server")
    @app.get("/.well-known/openid-configuration")
    def metadata() -> Response:
        return _json(_metadata(facts.issuer))

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    return app


def _client(facts: IssuerFacts, client_id: str) -> Client | None:
    registration = facts.clients.get(client_id)
    return None if registration is None else Client(client_id, registration)


def _lifetime(client: Client, grant_type: str) -> int:
    return LIFETIME_S


def _metadata(issuer: str) -> dict[str, Any]:
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "jwks_uri": f"{base}/jwks",
        "token_endpoint": f"{base}/token",
        "response_types_supported": ["none"],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    }


def _json(members: Mapping[str, Any]) -> Response:
    return Response(json.dumps(dict(members)), mimetype="application/json")
