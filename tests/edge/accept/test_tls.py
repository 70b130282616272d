"""Handshakes in memory: which certificate a client gets, and which alert it gets instead."""

from __future__ import annotations

import gc
import ssl
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edge.accept.tls import Pair, Shown, anonymous_context, control_context, public_context, upstream_context
from tests.edge.accept.test_client_hello import alpn, body, handshake, record, sni

HOSTS = ("a.example", "b.example", "c.example")


@cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@cache
def pair(*names: str, rsa: bool = False) -> Pair:
    key_type = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
    made = authority().issue_cert(*names, key_type=key_type)
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    return Pair(chain, made.private_key_pem.bytes())


@cache
def server() -> ssl.SSLContext:
    shown = [Shown(HOSTS[:1], (pair("a.example"), pair("a.example", rsa=True))), Shown(HOSTS[1:], (pair("*.example"),))]
    return public_context(shown, ("h2", "http/1.1"))


def client_context(alpn_names: Sequence[str] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    authority().configure_trust(context)
    if alpn_names:
        context.set_alpn_protocols(list(alpn_names))
    return context


class Ends:
    """A client and the server, and the bytes between them."""

    def __init__(
        self,
        context: ssl.SSLContext,
        server_name: str | None,
        accepts: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.up, self.down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.down, self.up, server_hostname=server_name, session=session)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = (accepts or server()).wrap_bio(self._incoming, self._outgoing, server_side=True)

    def take(self, flight: bytes) -> bytes:
        """Give the server bytes as a loop would; what it says to them. A failure is for the next bytes."""
        self._incoming.write(flight)
        try:
            self.server.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def send(self, raw: bytes) -> None:
        """Bytes behind the handshake."""
        self._incoming.write(raw)

    def end(self) -> None:
        """The client's transport is gone."""
        self._incoming.write_eof()

    def sent(self) -> bytes:
        """By the server."""
        return self._outgoing.read()

    def shake(self, step: int = 1 << 20) -> Ends:
        """Both to the end. Raises: ssl.SSLError, what the client thinks of it."""
        done = False
        while not done:
            try:
                self.client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            flight = self.up.read()
            assert flight or done
            for at in range(0, len(flight), step):
                self.down.write(self.take(flight[at : at + step]))
        return self

    @property
    def subject(self) -> set[str]:
        """The names of the certificate that the client got."""
        return {str(entry[1]) for entry in (self.client.getpeercert() or {}).get("subjectAltName", ())}

    @property
    def is_rsa(self) -> bool:
        der = self.client.getpeercert(True)
        assert der is not None
        return not isinstance(x509.load_der_x509_certificate(der).public_key(), ec.EllipticCurvePublicKey)


def alert(flight: bytes) -> int:
    assert flight[:-1] == bytes((21, 3, 3, 0, 2, 2))
    return flight[-1]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("a.example", {"a.example"}),
        ("B.Example", {"*.example"}),
        ("c.example", {"*.example"}),
        (None, {"a.example"}),
        ("127.0.0.1", {"a.example"}),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_chooses_the_certificate(asked: str | None, names: set[str], version: ssl.TLSVersion) -> None:
    context = client_context(("h2", "http/1.1"))
    context.maximum_version = version
    ends = Ends(context, asked).shake()
    assert (ends.subject, ends.is_rsa) == (names, False)
    assert ends.client.selected_alpn_protocol() == "h2"


def test_a_client_without_ecdsa_gets_the_other_key_type_of_the_host() -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert Ends(context, "a.example").shake().is_rsa
    with pytest.raises(ssl.SSLError):
        Ends(context, "b.example").shake()


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_handshake_in_small_pieces_is_the_same(step: int) -> None:
    assert Ends(client_context(("http/1.1",)), "b.example").shake(step).client.selected_alpn_protocol() == "http/1.1"


def test_a_retried_hello_is_judged_again() -> None:
    context = client_context(("h2",))
    ends = Ends(context, "b.example", retrying()).shake()
    assert ends.subject == {"*.example"}
    assert getattr(ends.server, "edge_sni", None) == "b.example"


@cache
def retrying() -> ssl.SSLContext:
    """Takes no key share but P-256, so that others are asked again."""
    context = public_context([Shown(HOSTS, (pair("*.example"),))], ("h2", "http/1.1"))
    context.set_ecdh_curve("prime256v1")
    return context


@pytest.mark.parametrize(
    ("name", "protocols", "reason"),
    [
        ("evil.example", ("h2",), "UNRECOGNIZED_NAME"),
        ("a.example.", (), "UNRECOGNIZED_NAME"),
        ("xa.example", (), "UNRECOGNIZED_NAME"),
        ("a.example", ("h3",), "NO_APPLICATION_PROTOCOL"),
        ("a.example", ("H2", "http/1.0", "ftp", "acme-tls/1"), "NO_APPLICATION_PROTOCOL"),
        (None, ("imap",), "NO_APPLICATION_PROTOCOL"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_name_or_protocol_that_is_not_served_ends_the_handshake_with_its_alert_A12(
    name: str | None, protocols: tuple[str, ...], reason: str, version: ssl.TLSVersion
) -> None:
    context = client_context(protocols)
    context.maximum_version = version
    ends = Ends(context, name)
    with pytest.raises(ssl.SSLError) as caught:
        ends.shake()
    assert reason in str(caught.value).upper().replace(" ", "_")
    with pytest.raises(ssl.SSLError):  # said once; then the loop closes
        ends.server.do_handshake()


@pytest.mark.parametrize(
    ("flight", "code"),
    [
        (record(handshake(body(sni(b"\xc3\xa4.example")))), 112),
        (record(handshake(body(sni(b"a.example\0.b")))), 112),
        (record(handshake(body(sni(b"a.example"), sni(b"b.example")))), 50),
        (record(handshake(body(alpn(b"h2"), alpn(b"x")))), 50),
        (record(b"\x01\xff\xff\xff"), 50),
        (record(handshake(body(sni(b"a.example"), alpn(b"x")))), None),
        (b"\x80\x2e\x01\x03\x03\x00\x03\x00\x00\x00\x20\x00\xc0\x2b" + bytes(33), None),
        (record(b"\x02\x00\x00\x00"), None),
    ],
)
def test_a_bad_hello_gets_an_alert_and_no_handshake(flight: bytes, code: int | None) -> None:
    ends = Ends(client_context(), None)
    said = ends.take(flight)
    assert code is None or alert(said) == code
    with pytest.raises(ssl.SSLError):
        ends.server.do_handshake()
    assert ends.server.cipher() is None


def test_a_failed_handshake_leaves_nothing_for_the_collector() -> None:
    """A flood of them must not hold its buffers until that comes."""
    gc.collect()
    gc.disable()
    try:
        for flight in (b"GET / HTTP/1.1\r\n\r\n", record(handshake(body(sni(b"evil.example"))))):
            ends = Ends(client_context(), None)
            ends.take(flight)
            for _ in range(2):
                with pytest.raises(ssl.SSLError):
                    ends.server.do_handshake()
            left = weakref.ref(ends.server)
            del ends
            assert left() is None
    finally:
        gc.enable()


def test_a_second_hello_that_asks_for_something_else_is_refused() -> None:
    """Without the look at it CPython would write a traceback to stderr for the name, and nobody judge the protocols."""
    for second, code in ((sni(b"\xff"), 112), (sni(b"evil.example"), None), (alpn(b"x"), None)):
        context = client_context(("h2",))
        ends = Ends(context, "b.example", retrying())
        with pytest.raises(ssl.SSLWantReadError):
            ends.client.do_handshake()
        ends.take(ends.up.read())
        said = ends.take(record(handshake(body(second))))
        assert code is None or alert(said) == code
        with pytest.raises(ssl.SSLError):
            ends.server.do_handshake()


def at_most_tls_11(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")


@pytest.mark.parametrize(
    ("weaken", "reason"),
    [
        (at_most_tls_11, "PROTOCOL_VERSION"),
        (lambda context: context.set_ciphers("AES128-GCM-SHA256:@SECLEVEL=0"), "HANDSHAKE_FAILURE"),
        (lambda context: context.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), "HANDSHAKE_FAILURE"),
    ],
)
def test_what_is_weak_is_refused(weaken: Callable[[ssl.SSLContext], None], reason: str) -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        weaken(context)
    with pytest.raises(ssl.SSLError) as caught:
        Ends(context, "a.example").shake()
    assert reason in str(caught.value).upper().replace(" ", "_")


@pytest.mark.parametrize(("then", "names"), [("b.example", {"*.example"}), ("a.example", {"a.example"}), (None, None)])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_counts_for_the_name_that_is_asked_now_A12(
    then: str | None, names: set[str] | None, version: ssl.TLSVersion
) -> None:
    """OpenSSL tells the session's name for TLS 1.2, not the hello's (RFC 6066 §3)."""
    context = client_context(("h2",))
    context.maximum_version = version
    first = Ends(context, "b.example").shake()
    first.server.write(b"x")
    first.down.write(first.sent())
    assert first.client.read(1) == b"x"  # with it came the ticket
    ends = Ends(context, then, session=first.client.session).shake()
    assert getattr(ends.server, "edge_sni", None) == then
    assert names is None or ends.client.session_reused or ends.subject == names


def test_the_servers_order_of_ciphers_counts() -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    ends = Ends(context, "a.example").shake()
    assert (ends.client.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    assert ends.client.compression() is None


def test_neither_side_writes_a_key_log_though_the_environment_names_one_P47(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    assert ssl.create_default_context().keylog_filename == str(keys)  # the usual way would
    keys.unlink(missing_ok=True)
    bundle = authority().cert_pem.bytes()
    own = pair("a.example")
    contexts = [public_context([Shown(HOSTS, (own,))]), upstream_context(own.chain_pem, own.key_pem, bundle)]
    assert [context.keylog_filename for context in contexts] == [None, None]
    Ends(client_context(), "a.example", contexts[0]).shake()
    assert not keys.exists()


def test_no_context_renegotiates_or_compresses_and_between_us_all_is_proven_P42_E1() -> None:
    own, bundle = pair("a.example"), authority().cert_pem.bytes()
    between = (
        upstream_context(own.chain_pem, own.key_pem, bundle),
        anonymous_context(bundle),
        control_context(own, bundle),
    )
    for context in (server(), control_context(own, None), *between):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    for context in between:
        assert (context.verify_mode, context.minimum_version) == (ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3)
        assert context.verify_flags & ssl.VERIFY_X509_STRICT


def test_pairs_that_do_not_belong_together_are_told_at_load_P22() -> None:
    one, other = pair("a.example"), pair("b.example")
    with pytest.raises(ssl.SSLError):
        public_context([Shown(HOSTS, (Pair(one.chain_pem, other.key_pem),))])


def test_keys_do_not_show() -> None:
    assert "PRIVATE" not in repr(pair("a.example"))


def test_reading_says_want_read_when_nothing_came_and_gives_each_byte_that_did() -> None:
    ends = Ends(client_context(), "a.example").shake()
    with pytest.raises(ssl.SSLWantReadError):
        ends.server.read(16)
    ends.client.write(b"a" * 40_000)  # three records
    flight, got = ends.up.read(), b""
    for piece in (flight[:17], flight[17:16_500], flight[16_500:]):  # cut where no record ends
        ends.send(piece)
        while True:
            try:
                got += ends.server.read(7_000)
            except ssl.SSLWantReadError:
                break
    assert got == b"a" * 40_000


def test_reading_behind_the_end_says_that_it_is_one() -> None:
    ends = Ends(client_context(), "a.example").shake()
    ends.end()
    got = b""
    with suppress(ssl.SSLEOFError):  # what an end without a close is, depends on how Python was built
        got = ends.server.read(16)
    assert got == b""
