"""Serves the example issuer: see the package's docstring."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config
from joserfc.jwk import ECKey

from examples.issuer.app import IssuerFacts, create_app
from examples.issuer.minting import signing_key


def main() -> None:
    """Bind, say so, serve until SIGTERM."""
    arguments = _arguments()
    listener = socket.create_server(("127.0.0.1", arguments.port), backlog=128)
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    facts = IssuerFacts(
        issuer=arguments.issuer or url,
        audience=arguments.audience,
        key=_key(arguments.signing_key),
        clients=json.loads(arguments.clients.read_bytes()),
    )
    asyncio.run(_serve(facts, listener, arguments.certificate, arguments.key, url))


async def _serve(facts: IssuerFacts, listener: socket.socket, certificate: Path, key: Path, url: str) -> None:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.certfile, config.keyfile = str(certificate), str(key)
    config.alpn_protocols = ["http/1.1"]
    config.accesslog = None
    config.errorlog = None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # The socket listens already: whoever connects now waits in its queue for the moment that Hypercorn needs.
    print(f"ready {url}", flush=True)
    await serve(create_app(facts), config, mode="wsgi", shutdown_trigger=stop.wait)


def _key(file: Path | None) -> ECKey:
    """The signing key of a PEM file, so that others can mint with it too; else a new one that dies with the process."""
    if file is None:
        return signing_key()
    key = ECKey.import_key(file.read_bytes(), parameters={"alg": "ES256", "use": "sig"})
    key.ensure_kid()
    return key


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.issuer", description="An OAuth2 issuer on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM chain for TLS")
    parser.add_argument("--key", type=Path, required=True, help="PEM key for TLS")
    parser.add_argument("--clients", type=Path, required=True, help="JSON file of clients")
    parser.add_argument("--signing-key", type=Path, help="PEM file with the P-256 key that signs tokens")
    parser.add_argument("--issuer", help="issuer identifier, when it is not the URL served at")
    parser.add_argument("--audience", default="https://api.example.com", help="audience of the tokens")
    return parser.parse_args()


if __name__ == "__main__":
    main()
