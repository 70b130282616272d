"""edge.yaml as `edge init` writes it. The policies it names are copied from `policies/`, where they are tested."""

from __future__ import annotations

from collections.abc import Sequence

_EDGE_YAML = """\
# Every key is explained in docs and checked by `edge check`; paths are relative to this file.
trust_domain: {trust_domain}
state: state                              # 0700: CA, keys, log, embedded store
listeners:
  public:   {{bind: "127.0.0.1:8443", hosts: [{hosts}]{tls}}}
  admin:    {{bind: "127.0.0.1:9901"}}      # loopback only
workers: 1
store: embedded                           # or valkey(s)://, redis(s)://, a unix socket; without TLS only to loopback
policies: policies
{identity}issuers:
  - issuer: https://idp.example.com/      # exact string, as it stands in the token's iss
    audience: [https://api.example.com]
    algorithms: [ES256]                   # pinned; keys by discovery, or jwks: URL | file
audit: {{durability: standard, origin: {origin}, checkpoint_every_s: 1, witnesses: []}}
"""

_OUTSIDE = "identity: {certificate: identity/chain.pem, key: identity/key.pem, bundle: identity/bundle.pem}\n"
_OUTSIDE_TLS = ", tls: {certificate: tls/chain.pem, key: tls/key.pem}"

POLICY_FILES = (
    "services.yaml",
    "routes.yaml",
    "limits.yaml",
    "edge.cedarschema",
    "orders.cedar",
    "orders.policytest.yaml",
)
OUTSIDE_FILES = ("identity/chain.pem", "identity/key.pem", "identity/bundle.pem", "tls/chain.pem", "tls/key.pem")
"""What must be put in place when there is no bundled CA."""


def edge_yaml(*, trust_domain: str, hosts: Sequence[str], outside: bool) -> str:
    """The file. `outside`: certificates come from elsewhere, there is no bundled CA."""
    return _EDGE_YAML.format(
        trust_domain=trust_domain,
        hosts=", ".join(f'"{host}"' if ":" in host else host for host in hosts),
        tls=_OUTSIDE_TLS if outside else "",
        identity=_OUTSIDE if outside else "",
        origin=f"{trust_domain}/log",
    )
