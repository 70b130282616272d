"""All bytes of a configuration, read once, and what they are called. Made by `io_load`, sent to the workers, parsed there.

Nobody reads a file again after this: what was validated is what is used, and the hash in the log names exactly it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.config.document import Document, Value
from edge.config.secret import Secret

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,99})\}")

POLICY_FILES = ("services", "routes", "limits")
"""Stems of the tables in the policy directory, each as .yaml or .json; all three must be there."""
SCHEMA_FILE = "edge.cedarschema"


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file of the bundle: it counts in the hash."""

    name: str
    """Relative to the directory of edge.yaml, with `/`; what diagnostics show."""
    raw: bytes


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that `parse` needs. Can be pickled; keys in it are `Secret`."""

    source: Path
    """edge.yaml, absolute."""
    edge: RawFile
    policies_name: str
    """The policy directory as diagnostics show it."""
    policies: tuple[RawFile, ...]
    """Tables, *.cedar and the schema, sorted by name."""
    unknown: tuple[str, ...]
    """Names of files in the policy directory that look like tables but are none (`route.yaml`)."""
    files: Mapping[str, Secret]
    """Absolute path → content of each file that edge.yaml refers to, or that stands in its place under `state/`."""
    unreadable: Mapping[str, str]
    """Absolute path → why it could not be read."""
    variables: Mapping[str, Secret]
    """Environment variables that edge.yaml refers to, as far as they are set."""

    @property
    def bundle_hash(self) -> str:
        """SHA-256 over edge.yaml and the policy files: name and content of each, length first, in order of the names."""
        digest = hashlib.sha256()
        for file in sorted((self.edge, *self.policies), key=lambda each: each.name):
            for part in (file.name.encode(), file.raw):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()

    def policy(self, stem: str) -> RawFile | None:
        """`routes` → routes.yaml or routes.json."""
        names = (f"{self.policies_name}/{stem}.yaml", f"{self.policies_name}/{stem}.json")
        return next((file for file in self.policies if file.name in names), None)

    def path(self, text: str) -> str:
        """The absolute form of a path that edge.yaml names."""
        return resolve(self.source, text)


def resolve(source: Path, text: str) -> str:
    """Relative paths are relative to the file that names them."""
    return os.path.normpath(source.parent / text)


def variable(text: str) -> str | None:
    """`${EDGE_STORE}` → `EDGE_STORE`; None for any other text."""
    found = _VARIABLE.fullmatch(text)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class References:
    """What edge.yaml refers to, found without judging it: `parse` says later what is wrong with it."""

    policies: str
    files: tuple[str, ...]
    variables: tuple[str, ...]


def references(document: Document) -> References:
    """The names to be read before edge.yaml can be parsed. Anything of the wrong type is passed over."""
    files = [_text(document, "identity", each) for each in ("certificate", "key", "bundle")]
    tls: tuple[str, ...] = ("listeners", "public", "tls")
    given = document.node(tls)
    ways: list[tuple[str | int, ...]] = [(*tls, at) for at in range(len(given.items) if given is not None else 0)] or [
        tls
    ]
    files += [_text(document, *way, each) for way in ways for each in ("certificate", "key")]
    issuers = document.node(("issuers",))
    for at in range(len(issuers.items) if issuers is not None else 0):
        files += [_text(document, "issuers", at, each) for each in ("jwks", "ca")]
    state = _text(document, "state") or "state"
    if document.node(("identity",)) is None:
        files += [f"{state}/identity/gateway/{each}.pem" for each in ("chain", "key", "bundle")]
    if given is None:
        files += [f"{state}/identity/public/{each}.pem" for each in ("chain", "key")]
    store = variable(_text(document, "store") or "")
    return References(
        policies=_text(document, "policies") or "policies",
        files=tuple(dict.fromkeys(each for each in files if each and not is_url(each))),
        variables=(store,) if store else (),
    )


def is_url(text: str) -> bool:
    return "://" in text


def _text(document: Document, *way: str | int) -> str | None:
    node = document.node(way)
    value: Value = node.value if node is not None else None
    return value if isinstance(value, str) else None
