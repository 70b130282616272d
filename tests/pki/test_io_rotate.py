"""Rotation: stages that wait for evidence, each of which can be cut short and taken up again."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki import desk, io_rotate, io_status, svid
from pki.bundle import Bundle
from pki.errors import AuthorityLocked, IssueRefused, SvidRejected
from pki.io_authority import Authority
from pki.io_desk import Desk
from pki.io_enrol import Grants, renew
from pki.io_keys import Passphrases, make_ec
from pki.io_status import Publisher, trusted
from pki.issue import BACKDATE, SIGNER_ROLES, UPSTREAM_ROLES
from pki.revocation import RevocationSet
from pki.rotation import Kind
from pki.succession import bundle_of, followed, number_of
from tests.pki.crash import ISSUE
from tests.pki.test_io_enrol import request

OWN = desk.RenewOwn("mesh.internal", ("localhost",))


@pytest.fixture
def publisher(authority: Authority, state: Path) -> Publisher:
    return Publisher(authority, state / "status")


@pytest.fixture
def there(authority: Authority, publisher: Publisher, passphrases: Passphrases, now: datetime) -> Desk:
    """With a gateway and one service."""
    there = Desk(authority, passphrases, publisher, Grants({}))
    publisher.publish(now)
    for message in (OWN, ISSUE):
        assert not isinstance(there.answer(message, now), desk.Failed)
    return there


def begin(authority: Authority, publisher: Publisher, state: Path, kind: Kind, now: datetime) -> None:
    io_rotate.begin(authority, publisher, Passphrases(state / "ca"), kind, now)


def told(authority: Authority, publisher: Publisher, now: datetime) -> None:
    """The service fetches the bundle."""
    with authority.record.rows() as rows:
        rows.saw_bundle("svc", "orders", publisher.bundle_sequence, now)


@pytest.mark.parametrize("kind", ["intermediate", "root"])
def test_a_rotation_ends_with_nothing_old_and_every_stage_verifies(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime, kind: Kind
) -> None:
    now += timedelta(hours=1)
    old_roots, old = authority.roots, {role: authority.signers[role] for role in SIGNER_ROLES}
    before = Bundle.parse((state / "identity" / "gateway" / "bundle.pem").read_bytes())
    begin(authority, publisher, state, kind, now)
    there.advance(now)
    if kind == "root":  # a service that was told nothing holds everything up
        assert "waiting for svc/orders" in io_rotate.describe(authority, now)
        assert authority.roots[0] == old_roots[0]
        told(authority, publisher, now)
        there.advance(now)
    assert authority.signers["svc"][0] not in old["svc"]
    assert "switched; 2/3" in io_rotate.describe(authority, now)
    assert io_rotate.describe(authority, now).endswith("waiting for svc/orders")
    shown = [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(
        (state / "identity" / "gateway" / "chain.pem").read_bytes())]  # fmt: skip
    if kind == "intermediate":  # who knows the root only is sent the new intermediate, and is content
        svid.verify(
            shown, anchors=before.anchors, expected_id=None, trust_domain="mesh.internal", usage="server", now=now
        )
    assert not isinstance(there.answer(ISSUE, now), desk.Failed)
    there.advance(now)
    assert io_rotate.current(authority) is None
    for role in SIGNER_ROLES:
        assert not set(authority.signers[role]) & set(old[role])
    assert bool(set(authority.roots) & set(old_roots)) == (kind == "intermediate")
    after = Bundle.parse((state / "identity" / "gateway" / "bundle.pem").read_bytes())
    assert len(after.anchors) == 1
    newest = RevocationSet.parse(
        (state / "status" / "revocation.json").read_bytes(),
        anchors=after.anchors,
        trust_domain="mesh.internal",
        now=now,
    )
    assert newest.number > 1


def test_each_part_of_the_beginning_is_made_once_however_often_it_is_cut_short(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    now += timedelta(hours=1)
    real, left = Authority.set_signers, [3]

    def cut(self: Authority, role: object, certificates: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError("power")
        real(self, role, certificates)  # type: ignore[arg-type]

    monkeypatch.setattr(Authority, "set_signers", cut)
    with pytest.raises(OSError, match="power"):
        begin(authority, publisher, state, "root", now)
    monkeypatch.undo()
    there.advance(now)
    assert "again" in io_rotate.describe(authority, now)
    with pytest.raises(IssueRefused):
        begin(authority, publisher, state, "intermediate", now)
    begin(authority, publisher, state, "root", now + timedelta(seconds=5))
    assert [len(authority.signers[role]) for role in SIGNER_ROLES] == [2] * 5
    assert len(authority.roots) == 2


@pytest.mark.parametrize("kind", ["intermediate", "root"])
def test_a_rotation_in_the_second_of_the_founding_makes_its_own(
    authority: Authority, publisher: Publisher, state: Path, kind: Kind
) -> None:
    founded = max(each[0].not_valid_before_utc for each in authority.signers.values()) + BACKDATE
    before = {role: set(held) for role, held in authority.signers.items()}, set(authority.roots)
    begin(authority, publisher, state, kind, founded)
    assert all(len(set(held) - before[0][role]) == 1 for role, held in authority.signers.items())
    assert len(set(authority.roots) - before[1]) == (kind == "root")


def test_one_at_a_time_and_never_without_the_root(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime
) -> None:
    now += timedelta(hours=1)
    with pytest.raises(AuthorityLocked):
        io_rotate.begin(authority, publisher, Passphrases(Path("/nowhere")), "root", now)
    assert io_rotate.current(authority) is None
    begin(authority, publisher, state, "root", now)
    with pytest.raises(IssueRefused, match="rotation"):
        begin(authority, publisher, state, "root", now)


@pytest.mark.parametrize("kind", ["intermediate", "root"])
def test_no_stage_begins_before_the_gateway_goes_by_the_last_one(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime, kind: Kind
) -> None:
    """A worker that has not taken over a bundle would refuse whom the new issuers certify."""

    def found() -> str:
        shown = there.answer(desk.Show(), now)
        assert isinstance(shown, desk.Shown)
        return shown.rotation

    now += timedelta(hours=1)
    bundle = state / "identity" / "gateway" / "bundle.pem"
    there.in_force = sha256(bundle.read_bytes()).hexdigest()
    begin(authority, publisher, state, kind, now)
    told(authority, publisher, now)
    there.advance(now)  # the files are new, and no worker has read them
    assert "announced" in found()
    assert "waiting for gw/edge; this gateway does not go by it yet" in found()
    there.in_force = sha256(bundle.read_bytes()).hexdigest()
    there.advance(now)
    assert "switched" in found()
    assert not isinstance(there.answer(ISSUE, now), desk.Failed)
    there.advance(now)
    assert found().endswith("have a certificate of the new issuers; this gateway does not go by it yet: "
                            "edge reload says what keeps it from it")  # fmt: skip
    there.in_force = sha256(bundle.read_bytes()).hexdigest()
    there.advance(now)
    assert found() == ""


def test_force_goes_on_without_the_evidence_one_stage_at_a_time(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime
) -> None:
    now += timedelta(hours=1)
    begin(authority, publisher, state, "root", now)
    stages = []
    for _ in range(2):
        there.advance(now, force=True)
        found = io_rotate.current(authority)
        stages.append(found.stage if found else "done")
    assert stages == ["switched", "done"]


def test_after_the_switch_a_service_may_renew_before_it_is_due(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime
) -> None:
    with authority.record.rows() as rows:
        leaf = rows.unexpired(now, "svc", "orders")[0].certificate or b""
    now += timedelta(hours=1)
    grants = Grants({"orders": ("orders.internal",)})
    with pytest.raises(IssueRefused, match="not-due"):
        renew(authority, grants, leaf, request(make_ec("p256")), now)
    begin(authority, publisher, state, "intermediate", now)
    there.advance(now)
    assert renew(authority, grants, leaf, request(make_ec("p256")), now).number > 0


@pytest.mark.parametrize("kind", ["intermediate", "root"])
def test_who_renewed_over_the_network_must_have_shown_what_he_got(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime, kind: Kind
) -> None:
    """The answer may have been lost: then he has the old certificate, with which he must be able to ask again."""
    with authority.record.rows() as rows:
        leaf = rows.unexpired(now, "svc", "orders")[0].certificate or b""
    now += timedelta(hours=1)
    there.grants = Grants({"orders": ("orders.internal",)})
    begin(authority, publisher, state, kind, now)
    told(authority, publisher, now)
    there.advance(now)
    for lost in (True, False):
        again = there.answer(desk.Renew(leaf, request(make_ec("p256"))), now)
        assert isinstance(again, desk.Certified)
        there.answer(desk.SawBundle(leaf if lost else again.issued.leaf, "of another bundle"), now)
        there.advance(now)
        under_way = io_rotate.describe(authority, now)
        assert under_way.endswith("waiting for svc/orders") if lost else not under_way


def test_P25_an_intermediate_that_was_stolen_is_revoked_once_another_signs(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime
) -> None:
    with authority.record.rows() as rows:
        leaf = rows.unexpired(now, "svc", "orders")[0].certificate or b""
    stolen, revoke = authority.signers["svc"][0], desk.Revoke("root", "svc", None, "keyCompromise", "test")
    bundle = Bundle.parse(authority.bundle_pem(roles=("svc",)))
    now += timedelta(hours=1)
    assert there.answer(revoke, now) == desk.Failed(
        "IssueRefused", "signs", "the svc intermediate signs; replace it first: edge ca rotate intermediate"
    )
    begin(authority, publisher, state, "intermediate", now)
    named = desk.Revoke("root", "svc", f"{authority.signers['svc'][1].serial_number:x}", "keyCompromise", "test")
    for early in (revoke, named):  # the one signs still, the other is not in use yet
        assert isinstance(there.answer(early, now), desk.Failed)
    there.advance(now, force=True)
    revoked = there.answer(revoke, now)
    assert isinstance(revoked, desk.Revoked)
    assert revoked.serials == (f"{stolen.serial_number:x}",)
    newest = RevocationSet.parse(
        (state / "status" / "revocation.json").read_bytes(),
        anchors=bundle.anchors,
        trust_domain="mesh.internal",
        now=now,
    )
    with pytest.raises(SvidRejected, match="revoked"):  # what it issued is refused by who still trusts it
        svid.verify(
            [leaf, *bundle.intermediates],
            anchors=bundle.anchors,
            expected_id=None,
            trust_domain="mesh.internal",
            usage="server",
            now=now,
            revoked=newest.revoked,
        )
    io_status.publish_root_list(authority, Passphrases(state / "ca"), state / "status", now)
    (path,) = (state / "status" / "crl").glob("root-*")
    assert [each.serial_number for each in x509.load_der_x509_crl(path.read_bytes())] == [stolen.serial_number]


@pytest.mark.parametrize("kind", ["intermediate", "root"])
def test_who_trusts_what_was_trusted_before_can_follow_every_stage(
    authority: Authority, publisher: Publisher, there: Desk, state: Path, now: datetime, kind: Kind
) -> None:
    """Also who slept through all but the last, since the word of the old root stays."""
    now += timedelta(hours=1)
    publisher.publish(now)
    first = held = trusted(state / "status")
    numbers = [number_of(held)]
    begin(authority, publisher, state, kind, now)
    for _ in range(3):
        offered = trusted(state / "status")
        for before in (held, first):
            found = followed(offered, held_pem=bundle_of(before), held=before, trust_domain="mesh.internal", now=now)
            assert found.pem == authority.bundle_pem(roles=UPSTREAM_ROLES)
        held = offered
        numbers.append(number_of(held))
        there.advance(now, force=True)
        there.answer(ISSUE, now)
    assert numbers == sorted(set(numbers))
    assert io_rotate.current(authority) is None
