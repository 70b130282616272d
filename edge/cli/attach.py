"""`edge attach SERVICE --to http://127.0.0.1:8001`: a front of zero trust for a plain service, until SIGTERM or SIGINT."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge.config.edge_file import parse_bind
from edge.errors import EdgeError
from edge.forward.io_plain import BadTarget, parse_target
from edge.serve.attach import run
from edge.serve.attach_settings import AttachSettings, Place, Registering
from edge.serve.gateway_call import CallFailed, Impostor
from edge.serve.report import LogFormat, Report
from edge.verify.form import Mode
from pki.errors import IssueRefused, PkiError
from pki.spiffe import is_name

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_GATEWAY = re.compile(r"https://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+):([0-9]{1,5})/?\Z")


_MODES: dict[str, Mode] = {"subject": "subject", "request": "request"}
"""As services.yaml spells them."""


def command(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name in services.yaml.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="http://127.0.0.1:PORT, or unix:/path.")],
    listen: Annotated[str, typer.Option(metavar="ADDR:PORT", help="Where gateways reach it.")],
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Key and certificate; default: attach-SERVICE.")
    ] = None,
    identity: Annotated[Path | None, typer.Option(metavar="DIR", help="What scripts/issue-cert.py wrote.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A gateway that is let in; repeatable. Default: all.")
    ] = None,
    assertion: Annotated[str | None, typer.Option(metavar="subject|request", help="Ask for an Edge-Assertion.")] = None,
    gateway: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Its services listener: renew, register; repeatable.")
    ] = None,
    enrol: Annotated[str | None, typer.Option(metavar="URL", help="Its enrol listener.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="One-time token, mode 0600.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(metavar="sha256:…", help="Of the root, as `edge ca token` says it.")
    ] = None,
    register: Annotated[bool, typer.Option(help="Be an instance of SERVICE, when --gateway is given.")] = True,
    announce: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Address to register.")] = None,
    instance: Annotated[str | None, typer.Option(metavar="NAME", help="Default: machine and port.")] = None,
    weight: Annotated[int, typer.Option(min=1, max=1000, help="Share among the instances.")] = 1,
    health_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="What gateways ask to see that it lives.")
    ] = None,
    route: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="A route to declare; repeatable.")] = None,
    drain: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="Seconds for requests in flight at the end.")
    ] = 10.0,
    log_format: Annotated[LogFormat, typer.Option(help="Lines on stderr as plain text or as JSON.")] = LogFormat.PLAIN,
) -> None:
    """Give a plain service on this machine mTLS that only gateways pass. `ready …` on stderr says that it is reachable."""
    accepted = tuple(accept or ())
    for name in (service, *accepted, *([instance] if instance is not None else [])):
        if not is_name(name):
            _wrong(f"{name!r} is not a name of a-z, 0-9 and inner hyphens", "SERVICE, --accept, --instance")
    try:
        target = parse_target(to)
    except BadTarget as exc:
        raise typer.BadParameter(str(exc), param_hint="--to") from exc
    registering = Registering(instance or "", announce or "", weight, health_path, tuple(route or ()))
    settings = AttachSettings(
        service=service,
        target=target,
        listen=parse_bind(listen) or _wrong(f"{listen!r} is not ADDRESS:PORT", "--listen"),
        state=(state or Path(f"attach-{service}")).absolute(),
        identity=identity,
        gateways=accepted,
        assertion=_mode(assertion),
        services=tuple(_place(each, "--gateway") for each in gateway or ()),
        enrol=None if enrol is None else _place(enrol, "--enrol"),
        token_file=token_file,
        root_sha256=_root(fingerprint),
        registering=registering if register else None,
        drain_s=drain,
    )
    raise typer.Exit(_run(settings, Report("attach", log_format)))


def _run(settings: AttachSettings, report: Report) -> int:
    try:
        return run(settings, report)
    except IssueRefused as exc:
        print(f"edge attach: refused by the gateway: {exc}", file=sys.stderr)
        return 3
    except Impostor as exc:
        print(f"edge attach: not the gateway, nothing was sent: {exc}", file=sys.stderr)
        return 4
    except (EdgeError, PkiError, CallFailed) as exc:
        print(f"edge attach: {exc}", file=sys.stderr)
        return 4


def _mode(text: str | None) -> Mode | None:
    if text is None:
        return None
    return _MODES.get(text) or _wrong(f"{text!r} is neither subject nor request", "--assertion")


def _place(text: str, option: str) -> Place:
    found = _GATEWAY.match(text)
    if found is None or not 0 < int(found[2]) < 65_536:
        _wrong(f"{text!r} is not https://HOST:PORT", option)
    return found[1].strip("[]"), int(found[2])


def _root(text: str | None) -> str | None:
    if text is None:
        return None
    found = _FINGERPRINT.match(text.lower().replace("sha256:", "").replace(":", ""))
    return found[1] if found is not None else _wrong("not the SHA-256 of a certificate in hexadecimal", "--fingerprint")


def _wrong(message: str, option: str) -> NoReturn:
    raise typer.BadParameter(message, param_hint=option)
