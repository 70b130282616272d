"""The authority's process, as its supervisor and the workers see it: a real one, forked, over a real authority."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.serve.ca import Word
from edge.serve.ca_link import CaLink
from edge.serve.children import Nursery
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from pki import desk, io_rotate
from pki.errors import AuthorityBusy
from pki.io_authority import Authority
from pki.io_keys import Passphrases, make_ec
from pki.io_status import Publisher
from pki.issue import IssueRequest
from pki.tlog.io_reader import LogReader
from tests.pki.founding import found_authority

TOKEN = desk.MakeToken("svc", "orders", ("orders.internal",), 86_400, 600, "test")


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("founded") / "state"
    state.mkdir(mode=0o700)
    found_authority(state / "ca", datetime.now(UTC) - timedelta(hours=30))
    return state


@pytest.fixture
def state(founded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(founded, tmp_path / "state")


@pytest.fixture
def link(reactor: Reactor, nursery: Nursery, state: Path) -> Iterator[CaLink]:
    link = CaLink(reactor, nursery, state, {"orders": ("orders.internal",)}, Report("test"))
    yield link
    link.stop()
    assert reactor.run_until(lambda: link.is_stopped, 10)


@pytest.fixture
def opened(reactor: Reactor, link: CaLink) -> CaLink:
    link.start()
    assert reactor.run_until(lambda: link.is_settled, 20)
    assert link.is_open
    return link


class Worker:
    """A worker's end."""

    def __init__(self, link: CaLink, name: str) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        link.attach(name, theirs)
        self._number = 0

    def send(self, raw: bytes) -> None:
        self._number += 1
        self.sock.send(msgspec.json.encode({"id": self._number, "ask": msgspec.Raw(raw)}))

    def word(self) -> Word:
        return msgspec.json.decode(self.sock.recv(1 << 18), type=Word)

    def reply(self) -> desk.Reply:
        while not (word := self.word()).id:
            pass  # a heartbeat
        return desk.read_reply(bytes(word.reply))


@pytest.fixture
def worker(opened: CaLink) -> Iterator[Worker]:
    worker = Worker(opened, "worker0")
    yield worker
    worker.sock.close()


def ask(reactor: Reactor, link: CaLink, request: desk.FromOperator) -> desk.Reply:
    replies: list[desk.Reply] = []
    link.ask(desk.encode(request), replies.append)
    assert reactor.run_until(lambda: bool(replies), 20)
    return replies[0]


def aside(reactor: Reactor, link: CaLink, passphrases: Passphrases) -> Authority:
    """The authority, which the gateway leaves to us. It is back after a second, and a busy machine may be slower."""
    while True:
        assert ask(reactor, link, desk.StandAside()) == desk.Done()
        try:
            return Authority.open(passphrases.ca_directory, passphrases, now=datetime.now(UTC), lock_wait_s=0.5)
        except AuthorityBusy:
            assert reactor.run_until(lambda: link.is_open, 20)


def made(reactor: Reactor, link: CaLink) -> str:
    token = ask(reactor, link, TOKEN)
    assert isinstance(token, desk.TokenMade)
    return token.text


def csr() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(make_ec("p256"), SHA256()).public_bytes(Encoding.DER)


def kinds(state: Path) -> list[str]:
    return [json.loads(entry)["event.action"] for _, entry in LogReader(state / "ca" / "log").latest(100)]


def test_nobody_else_opens_the_authority_while_it_runs(opened: CaLink, state: Path) -> None:
    with pytest.raises(AuthorityBusy):
        Authority.open(state / "ca", Passphrases(state / "ca"), now=datetime.now(UTC), lock_wait_s=0)


def test_operators_ask_through_the_supervisor(reactor: Reactor, opened: CaLink) -> None:
    key = make_ec("p256").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issued = ask(reactor, opened, desk.Issue("svc", "orders", key, ("orders.internal",), (), 86_400, "test"))
    assert isinstance(issued, desk.Certified)
    shown = ask(reactor, opened, desk.Show())
    assert isinstance(shown, desk.Shown)
    assert [(each.name, each.serial, each.is_current) for each in shown.certificates] == [
        ("orders", issued.issued.serial_hex, True)
    ]


def test_a_token_is_used_through_a_worker_once(reactor: Reactor, opened: CaLink, worker: Worker) -> None:
    token = made(reactor, opened)
    for expected in (desk.Certified, desk.Failed):
        worker.send(desk.encode(desk.Enrol("orders", token, csr())))
        assert isinstance(worker.reply(), expected)


@pytest.mark.parametrize(
    "request_",
    [
        desk.Issue("svc", "pay", b"", (), (), 3600, "x"),
        desk.MakeToken("gw", "edge-b", (), 3600, 600, "x"),
        desk.Revoke("svc", "orders", None, "superseded", "x"),
        desk.Show(),
        desk.StandAside(),
        desk.RenewOwn("mesh.internal", ()),
    ],
)
def test_a_worker_may_only_pass_on_what_strangers_say(worker: Worker, state: Path, request_: desk.FromOperator) -> None:
    before = kinds(state)
    worker.send(desk.encode(request_))
    assert worker.reply() == desk.Failed("CsrRejected", "csr-malformed", "not a request")
    assert kinds(state) == before


def test_a_worker_that_breaks_the_framing_is_not_listened_to_any_more(opened: CaLink, worker: Worker) -> None:
    other = Worker(opened, "worker1")
    worker.sock.send(b"{")
    worker.send(b"{}")
    for _ in range(2):
        other.send(b"{}")
        assert isinstance(other.reply(), desk.Failed)
    worker.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.reply()
    other.sock.close()


def test_P34_what_no_parser_takes_is_refused_and_ends_nobody(
    reactor: Reactor, nursery: Nursery, opened: CaLink, worker: Worker
) -> None:
    """Without this process nobody is believed after ten seconds, so no stranger may be able to end it."""
    (pid,) = nursery.pids
    token, request = made(reactor, opened), bytearray(csr())
    request[request.index(b"\x02\x01\x00") + 2] = 1  # version 2 of a signing request
    worker.send(desk.encode(desk.Enrol("orders", token, bytes(request))))
    reply = worker.reply()
    assert isinstance(reply, desk.Failed)
    assert (reply.kind, reply.rule) == ("CsrRejected", "csr-malformed")
    worker.send(desk.encode(desk.Enrol("orders", token, csr())))  # and the token is still good
    issued = worker.reply()
    assert isinstance(issued, desk.Certified)
    leaf = bytearray(issued.issued.leaf)
    leaf[leaf.index(b"\xa0\x03\x02\x01\x02") + 4] = 5
    worker.send(desk.encode(desk.Renew(bytes(leaf), csr())))
    reply = worker.reply()
    assert isinstance(reply, desk.Failed)
    assert (reply.kind, reply.rule) == ("IssueRefused", "unknown")
    assert tuple(nursery.pids) == (pid,)


def test_after_kill_9_another_answers_what_was_waiting(
    reactor: Reactor, nursery: Nursery, opened: CaLink, worker: Worker
) -> None:
    token = made(reactor, opened)
    (pid,) = nursery.pids
    os.kill(pid, signal.SIGSTOP)
    worker.send(desk.encode(desk.Enrol("", token, csr())))  # waits in the socket
    replies: list[desk.Reply] = []
    opened.ask(desk.encode(desk.Show()), replies.append)
    os.kill(pid, signal.SIGKILL)
    assert reactor.run_until(lambda: bool(replies), 5)
    assert reactor.run_until(lambda: opened.is_open, 20)
    assert isinstance(replies[0], desk.Failed)
    assert isinstance(worker.reply(), desk.Certified)


def test_a_revocation_is_pushed_to_every_worker(reactor: Reactor, opened: CaLink, worker: Worker) -> None:
    worker.send(desk.encode(desk.Enrol("", made(reactor, opened), csr())))
    assert isinstance(worker.reply(), desk.Certified)
    done = ask(reactor, opened, desk.Revoke("svc", "orders", None, "keyCompromise", "test"))
    assert isinstance(done, desk.Revoked)
    while (word := worker.word()).number != done.set_number:
        assert word.number


def test_renewal_follows_the_grants_in_force(reactor: Reactor, link: CaLink, state: Path) -> None:
    began = datetime.now(UTC) - timedelta(hours=17)
    with Authority.open(state / "ca", Passphrases(state / "ca"), now=began) as authority:
        leaf = authority.issue(IssueRequest("svc", "orders", make_ec("p256").public_key()), began).leaf
    link.start()
    worker = Worker(link, "worker0")
    for services, expected in (({}, "unknown-service"), ({"orders": ()}, "")):
        assert reactor.run_until(lambda: link.is_open, 20)
        link.adopt(services, "")
        ask(reactor, link, desk.Hello())  # behind it in the same queue
        worker.send(desk.encode(desk.Renew(leaf, csr())))
        reply = worker.reply()
        assert (reply.rule if isinstance(reply, desk.Failed) else "") == expected
    worker.sock.close()


def test_a_rotation_waits_until_every_worker_goes_by_the_new_bundle(
    reactor: Reactor, opened: CaLink, state: Path
) -> None:
    def shown() -> str:
        found = ask(reactor, opened, desk.Show())
        return found.rotation if isinstance(found, desk.Shown) else "closed"

    changes: list[None] = []
    opened.on_changed = lambda: changes.append(None)
    bundle = state / "identity" / "gateway" / "bundle.pem"
    (state / "identity").mkdir(mode=0o700)
    assert isinstance(ask(reactor, opened, desk.RenewOwn("mesh.internal", ())), desk.OwnRenewed)
    opened.adopt({}, sha256(bundle.read_bytes()).hexdigest())
    given = Passphrases(state / "ca", given={"root": b"root", "issuing": b"issuing"})
    with aside(reactor, opened, given) as authority:
        now = datetime.now(UTC)
        io_rotate.begin(authority, Publisher(authority, state / "status"), given, "intermediate", now)
    for stage in ("announced", "switched"):
        changes.clear()
        assert reactor.run_until(lambda: bool(changes), 20)
        assert stage in shown()
        assert "this gateway does not go by it yet" in shown()
        opened.adopt({}, sha256(bundle.read_bytes()).hexdigest())
    assert reactor.run_until(lambda: shown() == "", 20)


def test_it_stands_aside_for_who_needs_the_root(reactor: Reactor, opened: CaLink, state: Path) -> None:
    with aside(reactor, opened, Passphrases(state / "ca")):
        assert reactor.run_until(lambda: not opened.is_open, 5)
        assert isinstance(ask(reactor, opened, desk.Show()), desk.Failed)
    assert reactor.run_until(lambda: opened.is_open, 20)


def test_without_a_passphrase_it_stays_closed_and_says_why(
    reactor: Reactor, link: CaLink, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (state / "ca" / "issuing.passphrase").unlink()
    link.start()
    assert reactor.run_until(lambda: link.is_settled, 20)
    assert not link.is_open
    assert "--passphrase-file" in (link.closed_because or "")
    assert isinstance(ask(reactor, link, desk.Show()), desk.Failed)


def test_strangers_do_not_fill_the_log(reactor: Reactor, opened: CaLink, worker: Worker, state: Path) -> None:
    before = len(kinds(state))
    for _ in range(40):
        worker.send(desk.encode(desk.Enrol("orders", "guess", csr())))
        reply = worker.reply()
        assert isinstance(reply, desk.Failed)
        assert (reply.kind, reply.rule) == ("IssueRefused", "token")
    assert 0 < len(kinds(state)) - before <= 20
