"""What the operator says about a token issuer. `config` builds it from `issuers:` of edge.yaml and shows our faults.

```yaml
issuers:
  - issuer: https://idp.example.com/          # exact string, as in `iss`
    audience: [https://api.example.com]       # one of them must be in `aud`
    algorithms: [ES256]                       # pinned; nothing else is verified
    # jwks: https://idp.example.com/keys      # or a file; absent: by discovery
    # ca: idp-ca.pem                          # trust anchors for fetching; absent: those of the system
    # max_lifetime_s: 90000
    # leeway_s: 5
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509

from edge.authn import keys, urls

# No blank, control or fragment: `#` divides issuer from subject in the uid of a principal, and may stand there once only.
_ISSUER = re.compile(r"[\x21-\x22\x24-\x7e]{1,512}")
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class SettingFault:
    """One thing wrong in the settings of an issuer; `field` is the name in the file."""

    field: str
    rule: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One issuer whose tokens are taken."""

    issuer: str
    """Equal to `iss`, character by character (attack D5)."""
    audience: tuple[str, ...]
    """A token must name one of these in `aud`."""
    algorithms: tuple[str, ...]
    """Out of `keys.ALGORITHMS`. The token's `alg` picks among them and never adds to them."""
    jwks: str | None = None
    """URL of the key set. None with `jwks_document` None: found by discovery."""
    jwks_document: bytes | None = None
    """The key set itself, read from a file with the configuration; never fetched, changes with a reload."""
    ca_pem: bytes | None = None
    """Trust anchors for fetching from this issuer; None: those of the system."""
    max_lifetime_s: int = 90_000
    """Seconds that `exp` may lie ahead: a day and an hour. Bounds the use of a stolen token whatever the issuer says."""
    leeway_s: int = 5
    """Seconds by which the issuer's clock may be ahead of ours (`nbf`, `iat`). `exp` gets none: expired is expired."""

    def faults(self) -> tuple[SettingFault, ...]:
        """All that is wrong with the values; types are the reader's concern."""
        return (*self._name_faults(), *self._source_faults(), *self._number_faults())

    def _name_faults(self) -> list[SettingFault]:
        found = []
        if _ISSUER.fullmatch(self.issuer) is None:
            found.append(SettingFault("issuer", "issuer", "expected printable ASCII without blank and #", "copy `iss`"))
        if not self.audience or any(_AUDIENCE.fullmatch(name) is None for name in self.audience):
            remedy = "name at least one audience of this gateway, in printable ASCII"
            found.append(SettingFault("audience", "audience", "a token must be made for somebody", remedy))
        unknown = sorted(set(self.algorithms) - keys.ALGORITHMS)
        if unknown or not self.algorithms:
            message = f"not supported: {', '.join(unknown)}" if unknown else "no algorithm is pinned"
            remedy = f"write some of {', '.join(sorted(keys.ALGORITHMS))}"
            found.append(SettingFault("algorithms", "algorithm", message, remedy))
        return found

    def _source_faults(self) -> list[SettingFault]:
        if self.jwks_document is not None:
            try:
                keys.parse(self.jwks_document, algorithms=self.algorithms, valid_until_ns=keys.NEVER_NS)
            except keys.KeySetUnusable as exc:
                return [SettingFault("jwks", "key-set", str(exc), "write a JWK Set (RFC 7517) of public keys")]
            return []
        found = []
        field, url = ("issuer", self.issuer) if self.jwks is None else ("jwks", self.jwks)
        try:
            urls.parse(url)
        except urls.UrlRefused as exc:
            found.append(SettingFault(field, "url", str(exc), "write an https URL, or jwks: FILE"))
        if self.ca_pem is not None:
            try:
                x509.load_pem_x509_certificates(self.ca_pem)
            except ValueError:
                found.append(SettingFault("ca", "certificate", "no PEM certificates", "name a file of CA certificates"))
        return found

    def _number_faults(self) -> list[SettingFault]:
        found = []
        if not 1 <= self.max_lifetime_s <= 10 * 365 * 86_400:
            found.append(SettingFault("max_lifetime_s", "range", "expected 1 s to ten years", "leave it out for 90000"))
        if not 0 <= self.leeway_s <= 300:
            found.append(SettingFault("leeway_s", "range", "expected 0 to 300 s", "leave it out for 5"))
        return found
