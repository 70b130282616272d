"""edge.yaml as `edge init` writes it. The policies it names are copied from `policies/`, where they are tested."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_EDGE_YAML = """\
# Every key is explained in docs and checked by `edge check`; paths are relative to this file.
trust_domain: {trust_domain}
state: {state:<34} # 0700: CA, keys, log, embedded store
listeners:
  public:   {{bind: "{bind}", hosts: [{hosts}]{tls}}}
  admin:    {{bind: "127.0.0.1:9901"}}      # loopback only
workers: 1
store: {store:<34} # or valkey(s)://, redis(s)://, a unix socket; without TLS only to loopback
policies: policies
{authority}{identity}issuers:
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
OWN_TLS_FILES = OUTSIDE_FILES[3:]


@dataclass(frozen=True, slots=True)
class Choices:
    """What differs between one gateway's edge.yaml and another's."""

    trust_domain: str
    hosts: tuple[str, ...]
    origin: str
    """Of the log; no two gateways share one."""
    has_outside_identity: bool = False
    has_own_tls: bool = False
    """The public listener's certificate comes from elsewhere; always so with an outside identity."""
    bind: str = "127.0.0.1:8443"
    state: str = "state"
    store: str = "embedded"
    authority: str = ""
    """HOST:PORT of the services listener of the gateway that has the CA, where it is to be asked over the network."""


def edge_yaml(choices: Choices) -> str:
    """The file."""
    own_tls = choices.has_own_tls or choices.has_outside_identity
    return _EDGE_YAML.format(
        trust_domain=choices.trust_domain,
        hosts=", ".join(f'"{host}"' if ":" in host else host for host in choices.hosts),
        tls=_OUTSIDE_TLS if own_tls else "",
        authority=f'authority: "{choices.authority}"\n' if choices.authority else "",
        identity=_OUTSIDE if choices.has_outside_identity else "",
        origin=choices.origin,
        bind=choices.bind,
        state=_scalar(choices.state),
        store=_scalar(choices.store),
    )


def _scalar(text: str) -> str:
    """As YAML: plain where that is beyond doubt, else quoted (JSON's strings are YAML's)."""
    return text if re.fullmatch(r"[A-Za-z0-9$/][A-Za-z0-9${}_./:?=@-]*", text, re.ASCII) else json.dumps(text)
