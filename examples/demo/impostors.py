"""Promise 3: a service that merely joins the network receives not one byte. Five ways to try, each refused and recorded."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography import x509

from examples.demo import stranger
from examples.demo.change import diagnostics
from examples.demo.mesh import Mesh, route
from examples.demo.promise import Promises, expect, require
from examples.demo.stage import Actor, wait_for

_SAID_WITHIN_S = 5.0
_SERVED_AGAIN_WITHIN_S = 5.0


def show(promises: Promises, mesh: Mesh) -> None:
    """The five rogues: three at an address where an instance of `orders` is expected, one by a route, one by succession."""
    promises.chapter("A service that merely joins the network receives not one byte")
    _at_endpoints(promises, mesh)
    with promises.promise("rogue by a route outside its grant → refused at load, 0 bytes") as facts:
        facts.append(_outside_its_grant(mesh))
    with promises.promise(
        "rogue at the address and port of the stopped service → 502 upstream-identity, 0 bytes"
    ) as facts:
        facts.append(_in_place_of_the_service(mesh))
    with promises.promise("the real service is back at its address → 200"):
        mesh.orders = mesh.start_service("orders", _port(mesh.addresses["orders"]))
        mesh.orders.ready()
        token = mesh.token("alice")
        wait_for(
            "orders serves again",
            lambda: mesh.caller.ask("GET", "/orders/7", token).status == 200,
            _SERVED_AGAIN_WITHIN_S,
        )


def _at_endpoints(promises: Promises, mesh: Mesh) -> None:
    """Addresses that routes.yaml names for `orders`; who answers there is another question."""
    rogues = (
        ("plain", "no certificate", None, "tls-handshake"),
        ("self-made", "a self-made CA with the same names", _forged_identity(mesh), "chain-untrusted"),
        ("valid", "a valid certificate of another service", mesh.identity("billing"), "spiffe-id"),
    )
    actors = {name: _start(mesh, name, identity) for name, _, identity, _ in rogues}
    good = mesh.routes.read_text()
    added = (route(f"orders-{name}", f"/orders/{name}/**", "orders", actors[name].ready()) for name in actors)
    mesh.write_routes(good + "".join(added))
    mesh.stage.edge("reload", "-c", mesh.config)
    for name, what, _, rule in rogues:
        with promises.promise(f"rogue with {what} → 502 upstream-identity, 0 bytes") as facts:
            facts.append(_refused_for_identity(mesh, actors[name], f"/orders/{name}/7", rule))
    mesh.write_routes(good)
    mesh.stage.edge("reload", "-c", mesh.config)


def _forged_identity(mesh: Mesh) -> Path:
    """What anybody can make: a CA by the name of ours, and a certificate with the names of `orders`."""
    directory = mesh.stage.directory / "forged"
    authority = stranger.Authority(stranger.name_of(mesh.state / "ca" / "root.pem"))
    real = x509.load_pem_x509_certificate((mesh.identity("orders") / "cert.pem").read_bytes())
    names = real.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    authority.issue(directory, *names)
    return directory


def _in_place_of_the_service(mesh: Mesh) -> str:
    address = mesh.addresses["orders"]
    mesh.orders.end()
    rogue = _start(mesh, "successor", mesh.identity("billing"), _port(address))
    expect("address of the rogue", rogue.ready(), address)
    return _refused_for_identity(mesh, rogue, "/orders/7", "spiffe-id")


def _refused_for_identity(mesh: Mesh, rogue: Actor, path: str, rule: str) -> str:
    """Three requests, one of them with a body; each refused, none seen by the rogue. → what the log says."""
    token = mesh.token("alice")
    answers = [
        mesh.caller.ask("GET", path, token),
        mesh.caller.ask("GET", f"{path}?secret=1", token),
        mesh.caller.ask("POST", path, token, body=b"a secret body"),
    ]
    for answer in answers:
        expect("status", answer.status, 502)
        expect("reason", answer.reason, "upstream-identity")
    count = _end(rogue)
    require(f"the rogue was contacted: {count}", count["connections"] > 0)
    expect("bytes the rogue received", count["application_bytes"], 0)
    for leaf in mesh.leaves_of(answers):
        expect("event.reason in the log", leaf["event.reason"], "upstream-identity")
        expect("rule.id in the log", leaf["rule.id"], rule)
    return f"in the log: {rule}"


def _outside_its_grant(mesh: Mesh) -> str:
    rogue = _start(mesh, "outsider", mesh.identity("billing"))
    good = mesh.routes.read_text()
    before = len(mesh.gateway.errors)
    mesh.write_routes(good + route("payroll", "/payroll/**", "billing", rogue.ready()))
    wait_for("a line on stderr", lambda: "refused" in mesh.gateway.errors[before:], _SAID_WITHIN_S)
    checked = mesh.stage.edge("check", "-c", mesh.config, code=1)
    said = diagnostics(mesh.gateway.errors[before:])
    expect(f"number of diagnostics in {said}", len(said), 1)
    require(f"outside-grant is named: {said[0]}", ": outside-grant: " in said[0])
    require("edge check says the same", said[0].partition(": ")[2] in checked.stdout + checked.stderr)
    answer = mesh.caller.ask("GET", "/payroll/7", mesh.token("dave"))
    expect("status", answer.status, 404)
    expect("reason", answer.reason, "no-route")
    expect("what the rogue counted", _end(rogue), {"connections": 0, "handshakes": 0, "application_bytes": 0})
    mesh.write_routes(good)
    refused = [leaf for leaf in mesh.leaves() if leaf["event.action"] == "config.refused"]
    expect("event.reason of the last refused reload in the log", refused[-1]["event.reason"], "outside-grant")
    return "in the log: config.refused, outside-grant"


def _start(mesh: Mesh, name: str, identity: Path | None, port: int = 0) -> Actor:
    has: list[str | Path] = (
        [] if identity is None else ["--certificate", identity / "chain.pem", "--key", identity / "key.pem"]
    )
    return mesh.stage.start_example(f"rogue-{name}", "examples.rogue", "--port", str(port), *has)


def _end(rogue: Actor) -> dict[str, int]:
    """What it counted, by its own word."""
    rogue.end()
    found: dict[str, int] = json.loads(rogue.output.splitlines()[-1])
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
