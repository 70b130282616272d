"""The WSGI middleware: the application sees a caller, or nothing at all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from edge.verify import BadSettings, WsgiVerifier
from tests.edge.verify.mesh import BILLING, GATEWAY, ORDERS, mesh_of_today, private_pem


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.pem"
    path.write_bytes(mesh_of_today().bundle_pem)
    return path


def environ(assertion: bytes | None, **changes: Any) -> dict[str, Any]:
    found = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/orders/7", "QUERY_STRING": "",
        "HTTP_X_AUTH_SUBJECT": "alice", "HTTP_X_AUTH_ISSUER": "https://idp.example.com/", "HTTP_X_AUTH_SCOPES": "a b",
        "SSL_CLIENT_CERT": mesh_of_today().gateway.pem.decode(),
    }  # fmt: skip
    if assertion is not None:
        found["HTTP_EDGE_ASSERTION"] = assertion.decode()
    return {name: value for name, value in (found | changes).items() if value is not None}


def ask(asked: dict[str, Any], bundle: Path, **settings: Any) -> tuple[str, list[Any], bytes, list[Any]]:
    """(status, fields, body, environments that the application saw)."""
    told: list[Any] = []
    seen: list[Any] = []

    def app(inner: Any, start_response: Any) -> list[bytes]:
        seen.append(inner)
        start_response("200 OK", [])
        return [b"ok"]

    body = b"".join(
        WsgiVerifier(app, service=ORDERS, bundle=bundle, **settings)(asked, lambda *args: told.extend(args))
    )
    return told[0], told[1], body, seen


def refused(asked: dict[str, Any], bundle: Path, caplog: pytest.LogCaptureFixture, rule: str, **settings: Any) -> None:
    status, fields, body, seen = ask(asked, bundle, **settings)
    assert seen == []
    assert json.loads(body)["status"] == int(status.split(" ")[0])
    assert rule not in body.decode()
    assert caplog.records[-1].getMessage().split(":")[1].strip() == rule
    assert ("WWW-Authenticate" in dict(fields)) == status.startswith("401")


def test_the_application_is_told_the_caller(bundle: Path) -> None:
    asked = environ(mesh_of_today().assertion())
    status, _, body, seen = ask(asked, bundle)
    assert (status, body) == ("200 OK", b"ok")
    assert (seen[0]["edge.caller"].subject, seen[0]["edge.caller"].gateway) == ("alice", GATEWAY)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"HTTP_EDGE_ASSERTION": None}, "assertion-missing"),
        ({"HTTP_EDGE_ASSERTION": "a.b.c"}, "assertion-form"),
        ({"HTTP_X_AUTH_SCOPES": "a b admin"}, "identity-fields"),
        ({"HTTP_X_AUTH_SUBJECT": "alice,root"}, "identity-fields"),
        ({"HTTP_X_AUTH_SUBJECT": "\u20ac"}, "identity-fields"),
        ({"HTTP_X_AUTH_ROLES": "admin"}, "identity-fields"),
        ({"SSL_CLIENT_CERT": None}, "peer-unknown"),
        ({"SSL_CLIENT_CERT": ""}, "peer-unknown"),
        ({"SSL_CLIENT_CERT": None, "HTTP_SSL_CLIENT_CERT": mesh_of_today().gateway.pem.decode()}, "peer-unknown"),
        ({"SSL_CLIENT_CERT": "garbage"}, "peer-rejected"),
        ({"SSL_CLIENT_CERT": mesh_of_today().leaf(BILLING, "svc").pem.decode()}, "peer-rejected"),
    ],
)
def test_what_no_gateway_sent_is_refused(
    bundle: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], rule: str
) -> None:
    refused(environ(mesh_of_today().assertion(), **changes), bundle, caplog, rule)


def test_a_replay_to_another_service_is_refused(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(environ(mesh_of_today().assertion(aud=BILLING)), bundle, caplog, "assertion-audience")


def bound(target: str) -> bytes:
    request = {"method": "GET", "authority": "api", "target": target}
    return mesh_of_today().assertion(jti="D1", request=request)


HOST = {"HTTP_HOST": "api", "HTTP_X_REQUEST_ID": "D1"}


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ("/orders/7", {}),
        ("/orders/7?a=%20", {"QUERY_STRING": "a=%20"}),
        ("/%C3%A4", {"PATH_INFO": "/\u00c3\u00a4"}),  # WSGI's way: bytes as Latin-1
        ("/api/orders/7", {"SCRIPT_NAME": "/api"}),
        ("/a%20b?c", {"REQUEST_URI": "/a%20b?c", "PATH_INFO": "/a b", "QUERY_STRING": "c"}),
        ("/a%20b", {"RAW_URI": "/a%20b", "PATH_INFO": "/a b"}),
    ],
)
def test_a_bound_assertion_is_held_against_the_request(bundle: Path, target: str, changes: dict[str, str]) -> None:
    assert ask(environ(bound(target), **HOST, **changes), bundle, mode="request")[0] == "200 OK"


@pytest.mark.parametrize(
    "changes",
    [
        {"PATH_INFO": "/orders/8"},
        {"PATH_INFO": "/orders/\u20ac"},
        {"QUERY_STRING": "a=1"},
        {"REQUEST_URI": "/orders/%37"},
        {"REQUEST_METHOD": "DELETE"},
        {"HTTP_HOST": "evil"},
        {"HTTP_HOST": None},
        {"HTTP_X_REQUEST_ID": "D2"},
    ],
)
def test_a_replay_on_another_request_is_refused(
    bundle: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    refused(environ(bound("/orders/7"), **(HOST | changes)), bundle, caplog, "request-differs", mode="request")


def test_an_outside_chain_is_read_with_its_intermediates(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(mesh_of_today().root.pem)
    today = mesh_of_today()
    header = today.header(today.gateway, today.issuers["gw"])
    chain = {"SSL_CLIENT_CERT_CHAIN_0": today.issuers["gw"].pem.decode()}
    assert ask(environ(today.assertion(header), **chain), roots, gateways=[GATEWAY])[0] == "200 OK"


def test_where_the_server_requires_certificates_by_itself_the_assertion_alone_decides(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = environ(mesh_of_today().assertion(), SSL_CLIENT_CERT=None)
    assert ask(asked, bundle, peer="server")[0] == "200 OK"
    service = mesh_of_today().leaf(BILLING, "svc").pem.decode()
    refused(asked | {"SSL_CLIENT_CERT": service}, bundle, caplog, "peer-rejected", peer="server")


@pytest.mark.parametrize("has_certificate", [True, False])
def test_gunicorn_s_socket_tells_the_peer(
    tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture, has_certificate: bool
) -> None:
    today = mesh_of_today()
    (tmp_path / "gateway.pem").write_bytes(private_pem(today.gateway) + today.gateway.pem + today.issuers["gw"].pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "gateway.pem")
    server.load_verify_locations(bundle)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(bundle)
    if has_certificate:
        client.load_cert_chain(tmp_path / "gateway.pem")
    ours, theirs = socket.socketpair()
    callers: list[ssl.SSLSocket] = []
    calling = threading.Thread(target=lambda: callers.append(client.wrap_socket(theirs)))
    calling.start()
    with server.wrap_socket(ours, server_side=True) as connection:
        calling.join()
        callers[0].close()
        asked = environ(today.assertion(), SSL_CLIENT_CERT=None) | {"gunicorn.socket": connection}
        if has_certificate:
            assert ask(asked, bundle)[0] == "200 OK"
        else:
            refused(asked, bundle, caplog, "peer-unknown")


@pytest.mark.parametrize("settings", [{"peer": ""}, {"mode": "x"}])
def test_bad_settings_are_told_at_start(bundle: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(BadSettings):
        ask(environ(None), bundle, **settings)
