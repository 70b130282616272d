"""What a gateway that joined keeps of the authority's word, and hands on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.serve.follower import StatusCopy
from pki.errors import StatusRejected
from pki.io_authority import Authority
from pki.io_status import trusted
from pki.issue import UPSTREAM_ROLES
from pki.succession import TrustedBundle
from tests.pki.conftest import NOW, authority, founded, passphrases, state

__all__ = ["authority", "founded", "passphrases", "state"]

DOMAIN = "mesh.internal"


def test_a_bundle_is_handed_on_as_a_service_would_take_it_and_never_an_older_one(
    authority: Authority, tmp_path: Path
) -> None:
    pem, status = authority.bundle_pem(roles=UPSTREAM_ROLES), tmp_path / "status"
    status.mkdir(mode=0o700)
    copy = StatusCopy(status, DOMAIN)

    def says(number: int, domain: str = DOMAIN) -> bytes:
        signer = authority.status_signer()
        return TrustedBundle.seal(signer, trust_domain=domain, number=number, pem=pem, successions=(), now=NOW).raw

    for newest in (says(7), says(8)):
        copy.hand_on(newest, pem, NOW)
        assert trusted(status) == newest
    for wrong, rule in ((says(7), "rollback"), (says(9, "other.internal"), "trust-domain"), (b"{}", "malformed")):
        with pytest.raises(StatusRejected) as refused:
            copy.hand_on(wrong, pem, NOW)
        assert (refused.value.rule, trusted(status)) == (rule, newest)
