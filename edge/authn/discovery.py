"""Authorization server metadata (RFC 8414, OpenID Connect Discovery 1.0): where to ask, and what to believe of the answer.

    {"issuer": "https://idp.example.com/", "jwks_uri": "https://idp.example.com/keys", "token_endpoint": "…", …}

Authlib validates the two members that are used; two rules of ours come on top. `issuer` equals the configured one character
by character (RFC 8414 §3.3), or one server could speak for another. `jwks_uri` is of the issuer's own origin, or a document
could send the gateway anywhere (attack E4): an issuer that keeps its keys elsewhere is configured with `jwks:`. The
algorithms it announces are not read: what is taken is pinned in the configuration.

What a gateway does not use is not its business: Authlib's validation of whole documents also wants endpoints for users, and
RS256 among the algorithms of ID tokens, which says nothing about access tokens and would shut out issuers that sign with
ES256 alone.
"""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc8414 import get_well_known_url as oauth_well_known_url
from authlib.oidc.discovery import get_well_known_url as oidc_well_known_url

from edge.authn import strict_json, urls


class MetadataUnusable(ValueError):
    """The metadata does not say, for this issuer, where its keys are. The text says why."""


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be, in the order to ask (RFC 8414 §3.1; OpenID Connect Discovery 1.0 §4.1)."""
    return (
        str(oauth_well_known_url(issuer, external=True)),
        str(oidc_well_known_url(issuer, external=True)),
    )


def jwks_uri(raw: bytes, *, issuer: str) -> urls.FetchUrl:
    """The URL of the key set that the metadata document `raw` names for `issuer`.

    Raises: MetadataUnusable.
    """
    try:
        document: Any = strict_json.parse(raw)
    except ValueError as exc:
        raise MetadataUnusable(f"not strict JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise MetadataUnusable("not an object")
    if document.get("issuer") != issuer:
        raise MetadataUnusable("the metadata is of another issuer")
    metadata = AuthorizationServerMetadata(document)
    try:
        metadata.validate_issuer()
        metadata.validate_jwks_uri()
    except (ValueError, TypeError, AttributeError) as exc:
        # Authlib presumes that the members are strings.
        raise MetadataUnusable(f"not valid metadata: {exc}") from exc
    text = document.get("jwks_uri")
    if not isinstance(text, str):
        raise MetadataUnusable("no jwks_uri")
    try:
        found = urls.parse(text)
        own = urls.parse(issuer)
    except urls.UrlRefused as exc:
        raise MetadataUnusable(f"jwks_uri: {exc}") from exc
    if found.origin != own.origin:
        raise MetadataUnusable("jwks_uri is of another origin than the issuer; name it with jwks:")
    return found
