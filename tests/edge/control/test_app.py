"""The tables of the control plane: each row is a whole route, reaches its handler, and is open to nobody but whom it says."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import pkcs7

from edge.authn import METHODS
from edge.control.table import ROUTES, ControlRoute
from edge.errors import NotReady
from edge.parse.target import canonicalize
from edge.routing.pattern import parse, sample
from tests.edge.control.asked import asked, inside
from tests.pki.conftest import Forge

ROWS = [pytest.param(listener, row, id=f"{listener}-{row.name}") for listener, rows in ROUTES.items() for row in rows]


def ask(listener: str, path: str, bundle: bytes = b"", spiffe_bundle: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """(status, fields, body) to a GET."""
    return asked(listener, inside(bundle, spiffe_bundle), path=path)


@pytest.mark.parametrize(("listener", "row"), ROWS)
def test_a_row_is_a_whole_route(listener: str, row: ControlRoute) -> None:
    pattern = parse(row.path)
    assert not hasattr(pattern, "remedy"), pattern
    assert canonicalize(sample(pattern).encode(), encoded_slash=True).path == sample(pattern)
    assert f'Edge::Route::"{row.name}"' in row.policy
    assert bool(row.auth) != bool(row.open_because)
    assert set(row.auth) <= set(METHODS)
    assert [each.name for each in ROUTES[listener]].count(row.name) == 1


@pytest.mark.parametrize("row", ROUTES["services"], ids=lambda row: row.name)
def test_nobody_is_anonymous_to_the_services_listener(row: ControlRoute) -> None:
    assert row.auth == ("mtls",)
    assert "principal is Edge::" in row.policy
    assert "Anonymous" not in row.policy


@pytest.mark.parametrize("listener", ["enrol", "services"])
def test_cacerts_are_the_bundle_as_certs_only_pkcs7(listener: str, forge: Forge) -> None:
    bundle = forge.root.pem + forge.issuer.pem
    status, fields, body = ask(listener, "/.well-known/est/cacerts", bundle)
    assert (status, fields["content-type"]) == (200, "application/pkcs7-mime")
    assert fields["content-transfer-encoding"] == "base64"
    found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    assert {each.fingerprint(each.signature_hash_algorithm) for each in found} == {  # type: ignore[arg-type]
        each.certificate.fingerprint(each.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        for each in (forge.root, forge.issuer)
    }


@pytest.mark.parametrize("listener", ["enrol", "services"])
def test_the_spiffe_bundle_is_served_as_it_was_published(listener: str) -> None:
    status, fields, body = ask(listener, "/v1/bundle", spiffe_bundle=b'{"keys":[]}')
    assert (status, fields["content-type"], body) == (200, "application/json", b'{"keys":[]}')
    assert fields["cache-control"] == "max-age=300"
    with pytest.raises(NotReady):
        ask(listener, "/v1/bundle")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/status", b'{"bundle_hash":"h"}\n'),
        ("/v1/routes", b'{"routes":[{"name":"orders"}]}\n'),
        ("/metrics", b"x 1\n"),
    ],
)
def test_an_operator_reads_facts(path: str, body: bytes) -> None:
    status, _, found = ask("admin", path)
    assert (status, found.replace(b" ", b"") if body.startswith(b"{") else found) == (200, body)


def test_what_a_handler_raises_comes_out_for_the_line_to_answer() -> None:
    with pytest.raises(ValueError, match="PEM"):
        ask("enrol", "/.well-known/est/cacerts", b"no certificate")
