"""Write a configuration for a benchmark: `python -m examples.bench DIR [--durability strict]`.

What the benchmark provides comes in variables: BENCH_PORT (serve here), BENCH_CERTS (front, client and CA certificates and
the key set), BENCH_BACKEND_PORT, BENCH_REDIS_PORT, BENCH_ISSUER, BENCH_AUDIENCE, BENCH_LIMIT (requests a second and subject).
All duties are on: ES256 tokens of a pinned issuer, a scope policy, a limit per subject in the shared store, identity-pinned
mTLS to the backend, and the signed access log.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]

EDGE = """\
trust_domain: bench
listeners:
  public:
    bind: "127.0.0.1:{PORT}"
    hosts: [gateway.bench, localhost, 127.0.0.1]
    tls: {{certificate: "{CERTS}/gateway.pem", key: "{CERTS}/gateway.key"}}
identity: {{certificate: "{CERTS}/client.pem", key: "{CERTS}/client.key", bundle: "{CERTS}/ca.pem"}}
store: redis://127.0.0.1:{REDIS_PORT}
issuers:
  - {{issuer: "{ISSUER}", audience: [{AUDIENCE}], algorithms: [ES256], jwks: "{CERTS}/jwks.json"}}
audit: {{durability: {durability}, origin: bench/log}}
"""
SERVICES = """\
services:
  backend: {may_serve: ["/**"]}
"""
ROUTES = """\
routes:
  - name: backend
    match: {{path: "/**", methods: [GET, HEAD, POST]}}
    upstream: {{service: backend, endpoints: ["127.0.0.1:{BACKEND_PORT}"]}}
    auth: [jwt]
"""
LIMITS = """\
limits:
  - {{name: subject, match: {{service: backend}}, key: [subject], rate: {LIMIT}/second, on_store_failure: closed}}
"""
CEDAR = """\
@id("read")
permit (principal is Edge::User, action in Edge::Action::"read", resource in Edge::Service::"backend")
when { principal.scopes.contains("read") };

@id("write")
permit (principal is Edge::User, action in Edge::Action::"write", resource in Edge::Service::"backend")
when { principal.scopes.contains("write") };
"""


def main() -> None:
    """Write edge.yaml and the policies below DIR."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--durability", choices=("standard", "strict"), default="standard")
    arguments = parser.parse_args()
    given = {name.removeprefix("BENCH_"): value for name, value in os.environ.items() if name.startswith("BENCH_")}
    policies = arguments.directory / "policies"
    policies.mkdir(parents=True, exist_ok=True)
    (arguments.directory / "edge.yaml").write_text(EDGE.format(durability=arguments.durability, **given))
    (policies / "services.yaml").write_text(SERVICES)
    (policies / "routes.yaml").write_text(ROUTES.format(**given))
    (policies / "limits.yaml").write_text(LIMITS.format(**given))
    (policies / "backend.cedar").write_text(CEDAR)
    shutil.copy(ROOT / "policies" / "edge.cedarschema", policies)


if __name__ == "__main__":
    main()
