"""What must hold after kill -9 at any point of an issuance: never a certificate without a record, and a clean next start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.audit.verify import verify
from pki import desk, io_output, tokens
from pki.io_authority import Authority
from pki.io_desk import Desk
from pki.io_enrol import Grants
from pki.io_files import private_directory
from pki.io_keys import Passphrases, make_ec, private_pem
from pki.io_status import Publisher
from pki.tlog.io_log import head_copy_of
from pki.tlog.io_reader import LogReader
from pki.tlog.note import Verifier
from tests.pki import syscalls
from tests.pki.conftest import NOW
from tests.pki.founding import found_authority
from tests.pki.test_io_enrol import request

_KEY = make_ec("p256")
_SPKI = _KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ISSUE = desk.Issue("svc", "orders", _SPKI, ("orders.internal",), (), 86_400, "test")
CSR = request(_KEY)


def found(state: Path) -> None:
    """A new authority with both passphrases beside it."""
    private_directory(state)
    found_authority(state / "ca", NOW, unattended=["root", "issuing"])
    with opened(state):
        pass


class opened:
    """The authority and its desk, as a command opens them."""

    def __init__(self, state: Path) -> None:
        self.authority = Authority.open(state / "ca", Passphrases(state / "ca"), now=NOW, lock_wait_s=0)
        self.publisher = Publisher(self.authority, state / "status")
        self.desk = Desk(
            self.authority, Passphrases(state / "ca"), self.publisher, Grants({"orders": ("orders.internal",)})
        )

    def __enter__(self) -> opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.authority.close()

    def ask(self, message: desk.FromOperator | desk.FromWorker) -> desk.Reply:
        reply = self.desk.answer(message, NOW)
        assert not isinstance(reply, desk.Failed), reply
        return reply


def hand_out(state: Path, message: desk.FromOperator | desk.FromWorker) -> None:
    """Issue and write the directory: the whole work of `issue-cert.py`."""
    with opened(state) as there:
        certified = there.ask(message)
    assert isinstance(certified, desk.Certified)
    private_directory(state / "issued")
    io_output.write(
        state / "issued" / "orders", certified.issued, key_pem=private_pem(_KEY), bundle_pem=certified.bundle_pem,
        root_sha256=certified.root_sha256, replace=True,
    )  # fmt: skip


def check(state: Path, *, token_sha256: str | None = None) -> None:
    """Everything that must hold once the authority was opened again."""
    with opened(state) as there, there.authority.record.rows() as rows:
        assert rows.interrupted() == []
        issuances = [each for each in rows.unexpired(NOW) if each.role == "svc"]
        token = rows.token(token_sha256) if token_sha256 is not None else None
        spent = rows.is_spent(token_sha256) if token_sha256 is not None else None
        newest = there.publisher.publish(NOW)
    log = state / "ca" / "log"
    report = verify(log, Verifier.parse((log / "verifier.key").read_text().strip()))
    assert report.ok, report
    assert head_copy_of(log).exists()
    leaves = [json.loads(entry) for _, entry in LogReader(log).latest(1000)]
    logged = {leaf["pki.certificate_sha256"] for leaf in leaves if leaf["event.action"] == "pki.issued"}
    good = [each for each in issuances if each.state == "issued"]
    assert {each.state for each in issuances} <= {"issued", "revoked"}
    assert {sha256(each.certificate or b"").hexdigest() for each in good} <= logged
    assert {int(each.serial, 16) for each in newest.entries} == {e.serial for e in issuances if e.state == "revoked"}
    if token is not None:
        assert (spent, len(issuances)) in {(False, 0), (True, 1)}
    target = state / "issued" / "orders"
    if target.exists():  # then it is whole, and of the record
        assert io_output.read(target) is not None
        leaf = x509.load_pem_x509_certificate((target / "cert.pem").read_bytes()).public_bytes(Encoding.DER)
        assert leaf in [each.certificate for each in good]
    left = [path for path in (state / "ca").rglob(".*") if path.is_file()]
    assert left == []


def crashes(
    template: Path, place: Path, work: Callable[[Path], None], *, every: int = 1, first: int = 0
) -> Iterator[tuple[int, Path, str]]:
    """(n, the state as the kill before change n left it, the change) for each n, or each `every`-th; then n past the end."""
    whole = shutil.copytree(template, place / "whole") if template.exists() else place / "whole"
    changes = syscalls.run(lambda: work(whole))
    assert len(changes) > 20
    for n in range(first, len(changes), every):
        state = place / f"at-{n}"
        if template.exists():
            shutil.copytree(template, state)
        syscalls.run(lambda state=state: work(state), kill_at=n)  # type: ignore[misc]
        yield n, state, changes[n]
        shutil.rmtree(state, ignore_errors=True)


def _new(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _found_again(state: Path) -> None:
    """Half an authority never stands there: the next one is made as if nothing had been, and of the first nothing is left."""
    found(state)
    check(state)
    assert sorted(path.name for path in state.iterdir()) == ["ca", "status"]


def revoke(state: Path) -> None:
    """Issue first, in the template; this revokes and publishes."""
    with opened(state) as there:
        there.ask(desk.Revoke("svc", "orders", None, "keyCompromise", "test"))


def campaign(place: Path, every: int, first: int) -> dict[str, int]:
    """Each kind of work, killed at every `every`-th change from `first` on; → how many kills of each."""
    template, none = place / "template", place / "none"
    found(template)
    with opened(template) as there:
        made = there.ask(desk.MakeToken("svc", "orders", (), 86_400, 600, "test"))
    assert isinstance(made, desk.TokenMade)
    enrol = desk.Enrol("orders", made.text, CSR)
    kills = {"issue": 0, "enrol": 0, "revoke": 0, "found": 0}
    for name, message in (("issue", ISSUE), ("enrol", enrol)):
        work = partial(hand_out, message=message)
        for _, state, _ in crashes(template, _new(place / name), work, every=every, first=first):
            check(state, token_sha256=tokens.digest(made.text) if name == "enrol" else None)
            hand_out(state, ISSUE)
            check(state)
            kills[name] += 1
    issued = shutil.copytree(template, place / "issued")
    hand_out(issued, ISSUE)
    for _, state, _ in crashes(issued, _new(place / "revoke"), revoke, every=every, first=first):
        shutil.rmtree(state / "issued")  # the certificate is not good any more, or will not be
        check(state)
        kills["revoke"] += 1
    for _, state, _ in crashes(none, _new(place / "found"), found, every=every, first=first):
        if (state / "ca").exists():
            check(state)
        else:
            _found_again(state)
        kills["found"] += 1
    return kills
