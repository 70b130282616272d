"""For WSGI applications (Flask, Django, Bottle): nothing reaches them but what a gateway sent, as it sent it.

    app.wsgi_app = WsgiVerifier(app.wsgi_app, service="spiffe://mesh.internal/svc/orders", bundle="bundle.pem")

Who calls is `environ["edge.caller"]`, a `Caller`. The certificate of the connection is taken from where servers put it who
have it: `SSL_CLIENT_CERT` (mod_wsgi, Werkzeug, Cheroot; with `SSL_CLIENT_CERT_CHAIN_n`) or gunicorn's socket. A client's
header can have neither name: those begin with `HTTP_`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Unpack

from edge.verify.answer import refusal
from edge.verify.io_guard import Guard, Options
from edge.verify.rules import AssertionRefused
from edge.verify.verifier import MAX_CERTIFICATES, Presented

Environ = MutableMapping[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Any, StartResponse], Iterable[bytes]]

_STATUS = {401: "401 Unauthorized", 403: "403 Forbidden"}


class WsgiVerifier:
    """A WSGI application in front of another one."""

    def __init__(self, app: App, **options: Unpack[Options]) -> None:
        """Raises: BadSettings."""
        self._app = app
        self._guard = Guard(**options)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            caller = self._guard.caller(lambda: list(_shown(environ)) or None, _presented(environ))
        except AssertionRefused as refused:
            fields, body = refusal(refused.status)
            start_response(_STATUS[refused.status], list(fields))
            return [body]
        return self._app({**environ, "edge.caller": caller}, start_response)


def _shown(environ: Environ) -> Iterator[bytes]:
    """What the connection's peer proved itself with, leaf first, DER."""
    if environ.get("SSL_CLIENT_CERT"):
        yield ssl.PEM_cert_to_DER_cert(environ["SSL_CLIENT_CERT"])
        for at in range(MAX_CERTIFICATES):
            if pem := environ.get(f"SSL_CLIENT_CERT_CHAIN_{at}"):
                yield ssl.PEM_cert_to_DER_cert(pem)
        return
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, ssl.SSLSocket):
        leaf = connection.getpeercert(binary_form=True)
        if leaf:
            yield leaf


def _presented(environ: Environ) -> Presented:
    fields = [
        (
            name[5:].lower().replace("_", "-").encode("utf-8", "surrogatepass"),
            str(value).encode("utf-8", "surrogatepass"),
        )
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    raw_target = environ.get("REQUEST_URI") or environ.get("RAW_URI")
    if isinstance(raw_target, str) and raw_target.startswith("/"):
        raw_path, _, raw_query = raw_target.encode("latin-1", "backslashreplace").partition(b"?")
        return Presented(environ["REQUEST_METHOD"], raw_path, raw_query, fields)
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    raw_path, raw_query = (text.encode("latin-1", "backslashreplace") for text in (path, query))
    return Presented(environ["REQUEST_METHOD"], raw_path, raw_query, fields, is_decoded=True)
