"""`edge attach` in front of plain services: reachable through the gateway, and by nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509

from edge.forward.io_plain import parse_target
from edge.serve import attach_identity
from edge.serve.attach_settings import AttachSettings
from edge.serve.gateway_call import Impostor
from pki.errors import AnswerRejected, IssueRefused
from tests.e2e.attach_mesh import Mesh, home, mesh
from tests.e2e.sidecar import attached, problem_of, refused_bytes, revoke, shown_by, token
from tests.e2e.websocket_parties import by_websockets
from tests.e2e.whole_gateway import eventually
from tests.e2e.world import takes_connections
from tests.wire.rig import client_context

__all__ = ["home", "mesh"]  # fixtures


NODE = """\
require("http").createServer((request, response) => {
  let bytes = 0;
  request.on("data", piece => bytes += piece.length);
  request.on("end", () => {
    const body = JSON.stringify({method: request.method, url: request.url, headers: request.headers, bytes});
    response.writeHead(200, {"Content-Type": "application/json"});
    response.write(body.slice(0, 5));
    response.end(body.slice(5));
  });
}).on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = require("crypto").createHash("sha1").update(key).digest("base64");
  socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n" +
    "Sec-WebSocket-Accept: " + accept + "\\r\\n\\r\\n");
  socket.write(Buffer.concat([Buffer.from([0x81, 5]), Buffer.from("hello")]));
  socket.once("data", () => socket.end(Buffer.from([0x88, 2, 0x0f, 0xa0])));
}).listen(0, "localhost", function () { console.log(this.address().port); });
"""
NGINX = """\
daemon off; master_process off; error_log stderr; pid {home}/pid;
events {{}}
http {{
  access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{ listen unix:{home}/s.sock; location / {{ return 200 "$request_method $uri $http_x_auth_subject"; }} }}
}}
"""


# -- what comes through --------------------------------------------------------------------------------


def test_what_the_gateway_says_reaches_the_service_and_what_a_client_says_in_its_name_does_not(mesh: Mesh) -> None:
    with mesh.client() as client:
        head = b"GET /orders/7?a=%2F HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: forged\r\nEdge-Assertion: forged\r\n"
        answer = client.send(head + b"X-Kept: as it is\r\n\r\n").answer()
    assert (answer.status, answer.body) == (200, b"ok")
    seen = mesh.plain.seen.decode()
    assert seen.startswith("GET /orders/7?a=%2F HTTP/1.1\r\nhost: localhost\r\nx-kept: as it is\r\n")
    assert f"\r\nx-request-id: {answer.fields['x-request-id']}\r\n" in seen
    assert re.search(r'\r\nforwarded: for=127\.0\.0\.1;host="localhost";proto=https\r\n', seen)
    assert re.search(r"\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00\r\n", seen)
    assert "forged" not in seen


def test_bodies_are_streamed_both_ways(mesh: Mesh) -> None:
    # The words by which a scripted answer ends: random bytes spell them now and then, and an echo is not scripted.
    body = b"CLOSE" + os.urandom(300_000) + b"WAIT, CUT"
    with mesh.client() as client:
        mesh.plain.echoes = True
        head = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert client.send_while_reading(head + body).answer().body == body
    with mesh.client() as client:
        chunked = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        client.send(chunked)
        mesh.plain.wait_for(b"3\r\nabc\r\n")  # before it is whole
        mesh.plain.answers = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n"]
        assert client.send(b"0\r\n\r\n").answer().body == b"first"


def test_an_answer_to_head_has_no_body_and_the_connection_goes_on(mesh: Mesh) -> None:
    with mesh.client() as client:
        mesh.plain.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"]
        answer = client.send(b"HEAD /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").answer(is_head=True)
        assert (answer.status, answer.fields["content-length"]) == (200, "5000")
        assert client.send(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().body == b"ok"


def test_an_answer_of_an_old_server_ends_with_its_connection(mesh: Mesh) -> None:
    with mesh.client() as client:
        mesh.plain.answers = [b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nuntil it closesCLOSE"]
        answer = client.send(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").answer()
    assert (answer.body, "server" in answer.fields) == (b"until it closes", False)


def test_a_service_that_is_down_is_a_bad_gateway_and_back_when_it_is_back(mesh: Mesh) -> None:
    mesh.plain.stop()
    with mesh.client() as client:
        answer = client.send(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").answer()
        assert (answer.status, answer.fields["content-type"]) == (502, "application/problem+json")
        assert problem_of(answer.body) == "upstream-unreachable"
        request = answer.fields["x-request-id"]
        mesh.sidecar.line(rf"the service did not answer .*reason=upstream-unreachable.*request={request}")
        mesh.plain.start()
        assert client.send(b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").answer().status == 200


# -- and by nobody else --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "rule"),
    [
        (None, "client-certificate"),
        ("svc-python", "role"),
        ("op-alice", "role"),
        ("gw-elsewhere", "spiffe-id"),
        ("impostor", "untrusted"),
    ],
)
def test_who_is_not_the_gateway_does_not_reach_one_byte_of_the_service(
    mesh: Mesh, caller: str | None, rule: str
) -> None:
    mesh.plain.clear()
    before = mesh.plain.connections, mesh.plain.seen
    identity = None if caller is None else mesh.directory / caller
    assert refused_bytes(mesh.sidecar.port, identity) == b""
    mesh.sidecar.line(rf"refused .*rule={rule}\b")
    assert (mesh.plain.connections, mesh.plain.seen) == before


def test_a_gateway_s_certificate_alone_is_not_enough_where_an_assertion_is_asked_for(mesh: Mesh) -> None:
    mesh.plain.clear()
    before = mesh.plain.connections, mesh.plain.seen
    answer = refused_bytes(mesh.sidecar.port, mesh.directory / "state" / "identity" / "gateway")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    mesh.sidecar.line(r"refused .*reason=forbidden, rule=assertion-missing\b")
    assert (mesh.plain.connections, mesh.plain.seen) == before


def test_the_key_stays_private(mesh: Mesh) -> None:
    state = mesh.directory / "attached"
    modes = [
        (path, path.stat().st_mode & 0o777) for path in (state, state / "identity", state / "identity" / "key.pem")
    ]
    assert [mode for _, mode in modes] == [0o700, 0o700, 0o600]


# -- certificates --------------------------------------------------------------------------------------


def test_a_certificate_that_is_due_is_renewed_with_itself_and_what_is_in_flight_at_the_end_is_finished(
    mesh: Mesh,
) -> None:
    due, state = mesh.directory / "due", mesh.directory / "renewing"
    services = f"https://localhost:{mesh.gateway.ports['services']}"
    to = f"http://127.0.0.1:{mesh.plain.port}"
    with attached("orders", to, "--identity", due, "--gateway", services, "--no-register", "--state", state) as sidecar:
        sidecar.line("certificate in force")
        old, new = (
            x509.load_pem_x509_certificate((place / "cert.pem").read_bytes()) for place in (due, state / "identity")
        )
        assert old.serial_number != new.serial_number
        assert old.public_key() != new.public_key()
        assert names_of(old) == names_of(new)
        mesh.lead("orders", sidecar.port)
        with mesh.client() as client:
            mesh.plain.let.clear()
            client.send(b"GET /orders/last HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert mesh.plain.asked.acquire(timeout=10)
            assert f"{new.serial_number:x}" in shown_by(sidecar.port)
            sidecar.process.terminate()
            eventually(lambda: not takes_connections(sidecar.port), 10)
            mesh.plain.let.set()
            assert client.answer().status == 200
        mesh.lead("orders", mesh.sidecar.port)
        assert sidecar.ended() == 0
    assert sidecar.lines[-1] == "edge attach info: drained (count=1)"


def names_of(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


def test_a_gateway_that_was_revoked_is_let_in_no_more(mesh: Mesh) -> None:
    gone, identity = mesh.directory / "gw-gone", mesh.directory / "attached" / "identity"
    services = f"https://localhost:{mesh.gateway.ports['services']}"
    options: list[str | Path] = ["--identity", identity, "--gateway", services, "--no-register", "--state", "unused"]
    with attached("orders", f"http://127.0.0.1:{mesh.plain.port}", *options) as sidecar:
        assert refused_bytes(sidecar.port, gone).startswith(b"HTTP/1.1 200 OK\r\n")
        revoke(mesh.directory, "gone")
        sidecar.line(r"revocation set \(number=\d+, entries=1")
        before = mesh.plain.seen
        assert refused_bytes(sidecar.port, gone) == b""
        sidecar.line(r"refused .*rule=revoked\b")
        assert mesh.plain.seen == before
        assert sidecar.stop() == 0


def test_another_root_is_not_believed_and_a_token_is_good_once(mesh: Mesh) -> None:
    file, fingerprint = token(mesh.directory, "orders")
    state = mesh.directory / "in-process"
    settings = AttachSettings(
        service="orders",
        target=parse_target("http://127.0.0.1:1"),
        listen=("127.0.0.1", 0),
        state=state,
        identity=None,
        gateways=("edge",),
        services=(),
        enrol=("localhost", mesh.gateway.ports["enrol"]),
        token_file=file,
        root_sha256="0" * 64,
        registering=None,
        drain_s=1,
        assertion=None,
    )

    def enrol(settings: AttachSettings) -> attach_identity.Held:
        return asyncio.run(attach_identity.enrol(settings, datetime.now(UTC)))

    with pytest.raises(AnswerRejected, match="no root with the fingerprint"):
        enrol(settings)
    pinned = replace(settings, root_sha256=fingerprint.removeprefix("sha256:"))
    # By another name than its certificate has: whoever can stand there is not told the token.
    with pytest.raises(Impostor, match="host"):
        enrol(replace(pinned, enrol=("127.0.0.1", mesh.gateway.ports["enrol"])))
    assert not state.exists()
    held = enrol(pinned)
    found = attach_identity.find(pinned, datetime.now(UTC))
    assert found is not None
    assert (str(found.spiffe_id), found.chain) == ("spiffe://mesh.internal/svc/orders", held.chain)
    with pytest.raises(IssueRefused, match="token"):
        enrol(pinned)


# -- unmodified servers of other languages -------------------------------------------------------------


def started(command: list[str], pattern: str, stack: ExitStack, **options: object) -> str:
    """A server that says its port."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    for line in process.stdout:
        found = re.search(pattern, line)
        if found:
            stack.callback(process.stdout.close)
            return str(found[1])
    raise AssertionError(f"{command[0]} said no port")


@pytest.mark.parametrize("name", ["python", "node", "nginx"])
def test_an_unmodified_server_is_served_through_the_gateway_alone(mesh: Mesh, name: str, tmp_path: Path) -> None:
    if name != "python" and shutil.which(name) is None:
        pytest.skip(f"no {name} on this machine; on Debian: apt-get install {'nodejs' if name == 'node' else name}")
    with ExitStack() as stack:
        if name == "python":
            (tmp_path / "python").mkdir()
            (tmp_path / "python" / "7").write_text("a file")
            command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(tmp_path)]
            to = "http://127.0.0.1:" + started(command, r"port (\d+)", stack, stderr=subprocess.DEVNULL)
        elif name == "node":
            to = "http://localhost:" + started(["node", "-e", NODE], r"^(\d+)$", stack)
        else:
            place = stack.enter_context(TemporaryDirectory(prefix="n"))
            (Path(place) / "nginx.conf").write_text(NGINX.format(home=place))
            server = subprocess.Popen(["nginx", "-c", f"{place}/nginx.conf"], stderr=subprocess.DEVNULL)
            stack.callback(server.wait, 10)
            stack.callback(server.terminate)
            to = f"unix:{place}/s.sock"
            eventually(lambda: (Path(place) / "s.sock").exists(), 10)
        options: list[str | Path] = ["--identity", mesh.directory / f"svc-{name}", "--state", tmp_path / "state"]
        if name == "python":  # the route names no endpoint: it is the registration that leads there
            options += ["--gateway", f"https://localhost:{mesh.gateway.ports['services']}"]
        sidecar = stack.enter_context(attached(name, to, *options))
        mesh.lead(name, None if name == "python" else sidecar.port)
        if name == "python":
            sidecar.line("registered")
            eventually(lambda: mesh.gateway.get("/python/7")[0] == 200, 10)
        with mesh.client() as client:
            answer = client.send(f"GET /{name}/7 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).answer()
            assert answer.status == 200
            if name == "node":
                seen = json.loads(answer.body)
                assert (seen["url"], seen["headers"]["x-forwarded-host"]) == ("/node/7", "localhost")
                post = b"POST /node HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n" + bytes(70_000)
                assert json.loads(client.send(post).answer().body)["bytes"] == 70_000
                with by_websockets(
                    f"wss://localhost:{mesh.gateway.public}/node/ws", client_context(mesh.gateway), ()
                ) as ws:
                    assert ws.receive() == "hello"
                    ws.send("go")
                    assert ws.closed() == (4000, "")
            else:
                assert answer.body.decode().strip() == {"python": "a file", "nginx": "GET /nginx/7"}[name]
        assert refused_bytes(sidecar.port, mesh.directory / "svc-python") == b""
        assert refused_bytes(sidecar.port, None) == b""
        assert sidecar.stop() == 0
        if name == "python":  # it has said goodbye: nobody is dialled any more
            assert mesh.gateway.get("/python/7") == (502, "upstream-unreachable")
