"""Every exception of `pki`, as one tree. `pki` knows nothing of `edge`; who calls it translates.

PkiError
├── SpiffeIdError          not a SPIFFE ID
├── BundleError            a bundle of trust anchors cannot be read or is not one
├── SvidRejected           a presented certificate chain does not prove the identity (a rule of `svid.RULES`)
├── IssueRefused           the authority's rules do not allow this certificate            (issue-cert exit 3)
├── StatusRejected         a revocation set or heartbeat is not the authority's
├── AnswerRejected         what an authority answered to a client of EST is not what was asked for
├── CsrRejected            the signing request itself is bad                              (issue-cert exit 6)
├── MaterialRejected       what a gateway should be added with is not whole, not valid, or not a gateway's
├── AuthorityLocked        no or wrong passphrase, locked by another process, expired, or missing   (exit 4)
│   └── AuthorityBusy      another process holds it right now
├── UnsafeFile             a file or directory that others can read, write or redirect    (exit 4)
├── WouldOverwrite         something is already there                                     (issue-cert exit 5)
├── NotRecorded            the issuance could not be recorded, so nothing was handed out  (issue-cert exit 7)
├── SelfCheckFailed        the certificate just signed does not verify; it was revoked    (issue-cert exit 8)
└── LogError               a transparency log is damaged, rolled back, forked or malformed (`pki/tlog`)
"""

from __future__ import annotations


class PkiError(Exception):
    """Root of everything `pki` raises on purpose."""


class SpiffeIdError(PkiError):
    """The text is not a SPIFFE ID in the one spelling that is accepted."""


class BundleError(PkiError):
    """The bytes are not a usable bundle of trust anchors."""


class RuledPkiError(PkiError):
    """An error that names the rule which was broken: `rule` is for machines, `detail` for the operator's eyes only."""

    def __init__(self, rule: str, detail: str = "") -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule}: {detail}" if detail else rule)

    def __reduce__(self) -> tuple[type[RuledPkiError], tuple[str, str]]:
        return type(self), (self.rule, self.detail)


class SvidRejected(RuledPkiError):
    """The chain does not prove the identity. `rule` is a key of `pki.svid.RULES`."""


class IssueRefused(RuledPkiError):
    """The authority does not issue this: names, role, lifetime or key are outside what is allowed."""


class StatusRejected(RuledPkiError):
    """A revocation set or a heartbeat is malformed, not signed for a trusted root, or of another trust domain."""


class CsrRejected(RuledPkiError):
    """The certificate signing request is not acceptable: signature, key, or something asked for beyond a key."""


class AnswerRejected(PkiError):
    """An answer of EST holds no certificate, another root's, or one for another name or key. Nothing was taken from it."""


class MaterialRejected(PkiError):
    """The directory does not hold what another gateway can be added with. The text says what is wrong."""


class AuthorityLocked(PkiError):
    """The authority cannot be used now. The text says why and what to do."""


class AuthorityBusy(AuthorityLocked):
    """Another process holds the authority's lock: wait, or ask that process."""


class UnsafeFile(PkiError):
    """A path is not what a private file or directory must be. The text names the path and the remedy."""


class WouldOverwrite(PkiError):
    """Something is there already and was not to be replaced."""


class NotRecorded(PkiError):
    """The record or the authority's log could not be written; no certificate left the authority."""


class SelfCheckFailed(PkiError):
    """The new certificate did not pass the verifying profile; it was revoked and not handed out."""


class LogError(PkiError):
    """Root of what `pki/tlog` raises."""
