"""`edge init DIR --join MATERIAL|URL`: a further gateway under another one's CA; and what both kinds of `init` write.

Material is made where the CA is (`issue-cert.py NAME --role gateway`), or fetched from there with a one-time token
(`edge ca token NAME --role gateway`). edge.yaml and policies that are in DIR already stay as they are, so that they can come
from where the other gateway's do. The same command with newer material renews; who joined by a token renews by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import edge
from edge.cli.templates import OWN_TLS_FILES, POLICY_FILES, Choices, edge_yaml
from edge.config import io_load, issuing
from edge.config.edge_file import parse_bind
from edge.config.sources import variable
from edge.limit.rules import BadSetting
from edge.limit.store import parse_store
from pki import io_material
from pki.bundle import Bundle
from pki.errors import MaterialRejected
from pki.io_files import write_private
from pki.io_material import Material
from pki.io_status import STATUS
from pki.issue import name_space

if TYPE_CHECKING:
    from edge.serve.far_authority import Joined

_TEMPLATES = Path(edge.__file__).resolve().parent.parent / "policies"
_STORE = "${EDGE_STORE}"
"""From the environment: the URL may hold a password, and both gateways must name the same store."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says; empty and None leave it to us."""

    trust_domain: str | None
    hosts: tuple[str, ...]
    bind: str
    store: str | None
    state: Path | None

    @property
    def state_text(self) -> str:
        """As edge.yaml names it."""
        return "state" if self.state is None else os.path.abspath(self.state)


def check_choices(bind: str, store: str | None) -> None:
    """Raises: typer.BadParameter (exit 2) for what `edge check` would refuse."""
    if parse_bind(bind) is None:
        raise typer.BadParameter(f"{bind!r} is not ADDRESS:PORT", param_hint="--bind")
    if store is not None and store != "embedded" and variable(store) is None:
        settings = parse_store(store)
        if isinstance(settings, BadSetting):
            raise typer.BadParameter(f"{settings.message}; {settings.remedy}", param_hint="--store")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an operator was told where the CA is."""

    url: str
    """https://HOST:PORT of the enrol listener."""
    token: str
    root_sha256: str
    services: str | None
    """HOST:PORT of the services listener, where that is not the enrol listener's host and the port it names."""


def run(directory: Path, source: Path | Invitation, wishes: Wishes, now: datetime, say: Callable[[str], None]) -> None:
    """Join or renew. Everything is checked before anything is written, and before a token is spent what can be."""
    file = directory / "edge.yaml"
    is_new = not os.path.lexists(file)
    joined = _accepted(source, _state(file, wishes, directory), now) if isinstance(source, Invitation) else None
    authority = str(joined.authority) if joined is not None else ""
    if joined is not None:
        material = joined.material
    else:
        assert isinstance(source, Path)
        material = io_material.read(source, now)
    if is_new:
        choices = _choices(material, wishes, authority)
        state = wishes.state or directory / "state"
    else:
        state = _state_of(file, material)
    io_material.check_free(state, material)
    if is_new:
        write_edge_yaml(directory, choices)
        if not os.path.lexists(directory / "policies"):
            write_policies(directory)
            say(f"{directory / 'policies'} holds examples; both gateways must have the same policies and issuers")
        if not material.public:
            say(f"the public listener needs a certificate of its own: {', '.join(OWN_TLS_FILES)}")
        if choices.store == _STORE:
            say("set EDGE_STORE to the URL of the store that both gateways share")
    renewed = io_material.install(state, material)
    if joined is not None:
        from edge.serve.follower import StatusCopy  # as `_accepted`

        anchors = Bundle.parse(material.gateway["bundle.pem"][0]).anchors
        StatusCopy(state / STATUS, material.spiffe_id.trust_domain).take(joined.word, anchors, now)
    until = f"{material.not_after:%Y-%m-%dT%H:%M:%SZ}"
    if renewed:
        say(f"renewed {material.spiffe_id}, until {until}; a gateway that serves has noticed")
    else:
        say(f"joined as {material.spiffe_id}, until {until}; next: edge serve -c {file}")
    if authority and not is_new:
        say(f'{file} was there before; to be renewed over the network it needs: authority: "{authority}"')


def _state(file: Path, wishes: Wishes, directory: Path) -> Path:
    """Where the certificates will be. Raises: ConfigError, UnsafeState, MaterialRejected."""
    return _own_state(file)[1] if os.path.lexists(file) else wishes.state or directory / "state"


def _accepted(invitation: Invitation, state: Path, now: datetime) -> Joined:
    """What the token is good for.

    Raises:
        AuthorityLocked: the other gateway cannot be reached, or is not the one.
        IssueRefused: the token is not good.
        MaterialRejected: what came is not a gateway's.
        WouldOverwrite: there is no place for it; the token was not shown.
    """
    from edge.serve import far_authority  # what it needs takes half a second to load

    io_material.check_joinable(state)
    pinned = invitation.root_sha256.removeprefix("sha256:").replace(":", "").lower()
    enrol = far_authority.place_of(invitation.url)
    services = far_authority.place_of(invitation.services) if invitation.services else None
    return far_authority.joined(enrol, pinned, invitation.token, services, now)


def _choices(material: Material, wishes: Wishes, authority: str) -> Choices:
    spiffe_id = material.spiffe_id
    if wishes.trust_domain not in (None, spiffe_id.trust_domain):
        raise MaterialRejected(f"the material is of {spiffe_id.trust_domain}, not of {wishes.trust_domain}")
    if material.public and not set(wishes.hosts) <= set(material.hosts):
        raise MaterialRejected(
            f"the material is for {', '.join(material.hosts)}; list further hosts in the first gateway's edge.yaml"
        )
    hosts = wishes.hosts or material.hosts
    if not hosts:
        raise MaterialRejected("the material has no certificate for a public listener; name its hosts with --host")
    name_space(hosts)
    return Choices(
        trust_domain=spiffe_id.trust_domain,
        hosts=hosts,
        origin=f"{spiffe_id.trust_domain}/log/{spiffe_id.name}",
        has_own_tls=not material.public,
        bind=wishes.bind,
        state=wishes.state_text,
        store=wishes.store or _STORE,
        authority=authority,
    )


def _state_of(file: Path, material: Material) -> Path:
    """The state directory that an edge.yaml names which is there already. Raises: ConfigError, UnsafeState."""
    trust_domain, state = _own_state(file)
    if trust_domain != material.spiffe_id.trust_domain:
        raise MaterialRejected(f"the material is of {material.spiffe_id.trust_domain}, {file} of {trust_domain}")
    return state


def _own_state(file: Path) -> tuple[str, Path]:
    """Trust domain and state directory of an edge.yaml."""
    policy = issuing.read(io_load.load(file, os.environ))
    if policy.has_outside_identity:
        raise MaterialRejected(
            f"{file} has `identity:`, so certificates come from that authority, not from {file.parent}"
        )
    return policy.trust_domain, policy.state


def write_edge_yaml(directory: Path, choices: Choices) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "edge.yaml", edge_yaml(choices).encode())


def write_policies(directory: Path) -> None:
    """The examples, which are tested where they come from."""
    (directory / "policies").mkdir(parents=True, exist_ok=True)
    for name in POLICY_FILES:
        _write(directory / "policies" / name, (_TEMPLATES / name).read_bytes())


def _write(path: Path, content: bytes) -> None:
    write_private(path, content)
    path.chmod(0o644)  # policies are no secret, and reviewers read them
