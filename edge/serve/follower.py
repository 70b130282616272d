"""A gateway that joined: a process that hears the authority of the other gateway, and renews this one's certificates there.

    state/status/revocation.json heartbeat.json    what is revoked, as signed: the workers read it as where the CA is
    state/status/issuance-log.json issued/         what was handed out, as proven
    state/status/trusted.json                      the bundle as the authority vouches for it, for services that ask here
    state/identity/gateway public                  the next certificates, and the bundle of today

A process of its own, because it waits for the network. It has no state but these files, and a word is verified before it is
written. Who hears nothing for ten seconds dials nobody new (`known_status`): that needs nothing but that this process is kept
from hearing, or is not there.

A bundle is acknowledged when every worker here has it in force, and not before: a rotation goes on with it, and then services
show certificates of the new issuers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.control.word import Line
from edge.errors import UnsafeState
from edge.serve import control_socket
from edge.serve.children import Nursery
from edge.serve.far_authority import Door, Place, services_door
from edge.serve.kept import Kept
from edge.serve.reactor import Reactor
from edge.serve.report import Report
from pki import est, io_material, succession
from pki.bundle import Bundle
from pki.errors import IssueRefused, PkiError, StatusRejected
from pki.io_files import private_directory, read_private, read_public, replace_directory, write_private
from pki.io_issuance import IssuanceCopy
from pki.io_material import Files
from pki.io_status import SET, STATUS, TRUSTED, trusted, write_heartbeat
from pki.issue import unverified_role
from pki.known_status import KnownStatus

_AGAIN_S = 5.0
"""Between two tries of what was refused, or could not be done yet."""
_WAITS_S = (0.1, 0.5, 1.0, 2.0)
_RELOAD_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Followed:
    """Whom to follow."""

    place: Place
    trust_domain: str
    state: Path


class StatusCopy:
    """What another gateway's authority publishes, kept as where the authority is. Owner: one process at a time."""

    def __init__(self, directory: Path, trust_domain: str) -> None:
        """`directory`: its parent exists when something is taken."""
        self._directory = directory
        self._trust_domain = trust_domain
        self._known = KnownStatus()
        self._issued = IssuanceCopy(directory)

    def take(self, line: Line, anchors: Sequence[bytes], now: datetime) -> None:
        """Verify and write what is new. `anchors`: roots, DER.

        Raises:
            StatusRejected: it does not verify, or would take back what is known.
            OSError, UnsafeFile: it cannot be written there.
        """
        private_directory(self._directory)
        domain = self._trust_domain
        newest, heartbeat = bytes(line.set) if line.set else b"", bytes(line.heartbeat)
        if newest and self._known.take_set(newest, anchors=anchors, trust_domain=domain, now=now):
            write_private(self._directory / SET, newest, replace=True)
        log, issued = bytes(line.log) if line.log else b"", line.issued or {}
        self._issued.take(log, issued, anchors=anchors, trust_domain=domain, now=now)
        self._known.take_heartbeat(heartbeat, anchors=anchors, trust_domain=domain, now=now)
        write_heartbeat(self._directory, heartbeat)

    def hand_on(self, vouched: bytes, bundle_pem: bytes, now: datetime) -> None:
        """Keep the bundle as the authority vouches for it, for services that ask here. `bundle_pem`: what is trusted here.

        Raises:
            StatusRejected: no service could believe it.
            OSError, UnsafeFile: it cannot be written there.
        """
        held = trusted(self._directory)
        found = succession.followed(vouched, held_pem=bundle_pem, held=held, trust_domain=self._trust_domain, now=now)
        if found.raw != held:
            write_private(self._directory / TRUSTED, found.raw, replace=True)


class Following:
    """The process's body."""

    def __init__(self, followed: Followed, report: Report, pipe: int) -> None:
        """`pipe`: a byte is written when the first word was heard."""
        self._followed = followed
        self._report = report
        self._pipe = pipe
        self._copy = StatusCopy(followed.state / STATUS, followed.trust_domain)
        self._identity = followed.state / "identity"
        self._acknowledged = b""  # the bundle that the other side knows we have
        # Not before these, by the monotonic clock, is tried again what was refused, or could not be done yet.
        self._acknowledge_at_s = self._renew_at_s = 0.0

    def run(self) -> int:
        """Until it is killed."""
        said, failures = "", 0
        while True:
            began_s = time.monotonic()
            try:
                self.follow()
                cause = ""
            except (PkiError, OSError) as error:
                cause = str(error)
            if cause and cause != said:
                self._report.warning("the authority is not heard", cause=cause)
            said = cause
            failures = failures + 1 if time.monotonic() - began_s < 1.0 else 0
            time.sleep(_WAITS_S[min(failures, len(_WAITS_S) - 1)] if cause or failures > 1 else 0)

    def follow(self) -> None:
        """One connection, until it ends or something has to be done.

        Raises:
            PkiError, OSError: it could not be had, or held.
        """
        files = self._files("gateway")
        door = services_door(self._followed.place, files, self._followed.trust_domain)
        try:
            if self._must_acknowledge(files):
                self._acknowledge(door, files["bundle.pem"][0])
            if self._must_renew(files) and self._renewed(door, files):
                return
            for line in door.words():
                if self._take(line, files) or self._must_acknowledge(files) or self._must_renew(files):
                    return
        finally:
            door.close()

    def _files(self, name: str) -> Files:
        directory = self._identity / name
        read = {each: (read_public(directory / each), 0o644) for each in ("chain.pem", "bundle.pem")}
        return {**read, "key.pem": (read_private(directory / "key.pem"), 0o600)}

    # What is revoked, and whom to trust

    def _take(self, line: Line, files: Files) -> bool:
        """Verify and write; → whether the bundle is another now, so that the next connection has to be made with it."""
        bundle_pem = files["bundle.pem"][0]
        self._copy.take(line, Bundle.parse(bundle_pem).anchors, datetime.now(UTC))
        if self._pipe >= 0:
            os.write(self._pipe, b"\n")
            os.close(self._pipe)
            self._pipe = -1
        if line.bundle:
            self._renew_at_s = 0.0  # it may be another who signs now
            if _certificates(line.bundle.encode("ascii")) != _certificates(bundle_pem):
                self._adopt(line.bundle.encode("ascii"), files)
                return True
        if line.trusted:
            self._hand_on(bytes(line.trusted), bundle_pem)
        return False

    def _hand_on(self, vouched: bytes, bundle_pem: bytes) -> None:
        """What is wrong with it is no reason to hear nothing more."""
        try:
            self._copy.hand_on(vouched, bundle_pem, datetime.now(UTC))
        except StatusRejected as error:
            self._report.warning("the authority's word on its bundle is not handed on", cause=str(error))

    def _adopt(self, bundle_pem: bytes, files: Files) -> None:
        """Trust what the gateway with the authority trusts. Who says so was proven by what was trusted before."""
        anchors = Bundle.parse(bundle_pem).anchors
        roots = b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in anchors)
        self._acknowledge_at_s = 0.0
        self._replace("gateway", {**files, "bundle.pem": (bundle_pem, 0o644)})
        if (self._identity / "public").is_dir():
            self._replace("public", {**self._files("public"), "bundle.pem": (roots, 0o644)})
        self._report.info("trust changed", count=len(anchors))

    def _replace(self, name: str, files: Files) -> None:
        replace_directory(self._identity / name, files, replace=True)

    def _must_acknowledge(self, files: Files) -> bool:
        return files["bundle.pem"][0] != self._acknowledged and time.monotonic() >= self._acknowledge_at_s

    def _acknowledge(self, door: Door, bundle_pem: bytes) -> None:
        """Say that this bundle is in force, when it is."""
        self._acknowledge_at_s = time.monotonic() + _AGAIN_S
        try:
            answer = control_socket.ask(self._followed.state / "run", "reload", _RELOAD_WITHIN_S)
        except UnsafeState:  # the gateway starts, and has read the files before or reads them now
            return
        if not answer.ok:
            self._report.warning("the bundle is not in force here", cause="; ".join(answer.faults))
            return
        door.bundle()
        self._acknowledged = bundle_pem

    # The gateway's own certificates

    def _must_renew(self, files: Files) -> bool:
        """Past two thirds of its life, or of an issuer of which the bundle names a successor."""
        if time.monotonic() < self._renew_at_s:
            return False
        leaf = x509.load_pem_x509_certificates(files["chain.pem"][0])[0]
        if datetime.now(UTC) >= est.renew_when(leaf.not_valid_before_utc, leaf.not_valid_after_utc, leaf.serial_number):
            return True
        issuers = [each for each in _certificates(files["bundle.pem"][0]) if unverified_role(each) == "gw"]
        return any(each.subject != leaf.issuer for each in issuers)

    def _renewed(self, door: Door, files: Files) -> bool:
        """Both certificates; → whether they were."""
        self._renew_at_s = time.monotonic() + _AGAIN_S
        bundle = {"bundle.pem": files["bundle.pem"]}
        try:
            public: Files = {}
            gateway = {**door.certified("simplereenroll", files["bundle.pem"][0]), **bundle}
            if (self._identity / "public").is_dir():
                public = door.certified("public/simpleenroll", b"")
            material = io_material.verified(gateway, public, datetime.now(UTC), source=str(self._followed.place))
        except IssueRefused as refused:
            if refused.rule != "not-due":  # the new issuer does not sign yet
                self._report.warning("certificates not renewed; trying again", cause=str(refused))
            return False
        io_material.install(self._followed.state, material)
        self._acknowledged = b""  # once more, as who it is now: a rotation waits until the new one was shown
        self._report.info("certificates renewed")
        return True


class Follower:
    """The supervisor's side: keeps one such process running. It may be killed, since every file is replaced as a whole."""

    def __init__(self, reactor: Reactor, nursery: Nursery, report: Report, followed: Followed) -> None:
        self.has_heard = False
        """The authority said something since the start."""
        self._kept = Kept(
            reactor, nursery, report, "follower", lambda pipe: Following(followed, report, pipe).run, self._heard
        )
        self._kept.start()

    def _heard(self) -> None:
        self.has_heard = True

    def stop(self) -> None:
        self._kept.stop()


def _certificates(pem: bytes) -> frozenset[x509.Certificate]:
    return frozenset(x509.load_pem_x509_certificates(pem))
