"""A small but real OAuth2 issuer: RFC 6749 client credentials, RFC 9068 access tokens, RFC 8414 metadata, a JWK Set.

Authlib's `AuthorizationServer` on Flask, served over TLS by Hypercorn as a process of its own:

    python -m examples.issuer --certificate cert.pem --key key.pem --clients clients.json

It prints `ready https://127.0.0.1:PORT` when it answers, and ends on SIGTERM. Each client stands for a caller: its id is the
`sub` of its tokens.

    {"alice": {"secret": "…", "scopes": ["orders:read", "orders:write"], "roles": ["auditor"], "tenant": "acme"}}

`minting` makes tokens directly with the issuer's key, good ones and bad ones, for tests and the demo.
"""
