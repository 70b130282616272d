"""Reads a configuration from the disk, once. What the bytes say is for `parse`; here only what may be read at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edge.config import document
from edge.config.secret import Secret
from edge.config.sources import POLICY_FILES, SCHEMA_FILE, RawFile, Sources, references, resolve
from edge.errors import UnsafeState
from pki.io_files import read_regular

_MAX_FILE_BYTES = 16 << 20
_MAX_POLICY_FILES = 2000
_TABLE_ENDINGS = (".yaml", ".yml", ".json")
_TESTS = ".policytest"
_OTHERS = 0o007
_PRIVATE_KEY = b"PRIVATE KEY-----"


def load(edge_yaml: Path, environ: Mapping[str, str]) -> Sources:
    """Read `edge_yaml` and everything it names.

    A named file that is missing is noted, because `parse` can say where it was named.
    Raises: UnsafeState when edge.yaml itself cannot be read, or a private key can be read by everybody.
    """
    source = Path(os.path.abspath(edge_yaml))
    try:
        edge = RawFile(source.name, _read(source))
    except OSError as exc:
        raise UnsafeState(
            f"{edge_yaml}: {_reason(exc)}; name the file with -c FILE, or make one: edge init DIR"
        ) from exc
    named = references(document.read(edge.name, edge.raw))
    policies_name = _name(source, named.policies)
    policies, unknown = _policies(Path(resolve(source, named.policies)), policies_name)
    files: dict[str, Secret] = {}
    unreadable: dict[str, str] = {}
    for text in named.files:
        path = resolve(source, text)
        try:
            files[path] = Secret(_read(Path(path)))
        except OSError as exc:
            unreadable[path] = _reason(exc)
    return Sources(
        source=source,
        edge=edge,
        policies_name=policies_name,
        policies=policies,
        unknown=unknown,
        files=files,
        unreadable=unreadable,
        variables={name: Secret(environ[name].encode()) for name in named.variables if name in environ},
    )


def _policies(directory: Path, name: str) -> tuple[tuple[RawFile, ...], tuple[str, ...]]:
    """The files of the bundle in `directory`, and those that look like tables but have no known name.

    Hidden files and directories are passed over: editors and mounted ConfigMaps leave them.
    """
    known: list[RawFile] = []
    unknown: list[str] = []
    try:
        entries = sorted(os.listdir(directory))
    except OSError:
        return (), ()  # parse misses the tables then, and says so
    if len(entries) > _MAX_POLICY_FILES:
        raise UnsafeState(f"{directory}: {len(entries)} files; stay within {_MAX_POLICY_FILES}")
    for entry in entries:
        stem, ending = os.path.splitext(entry)
        path = directory / entry
        if entry.startswith(".") or stem.endswith(_TESTS) or path.is_dir():
            continue
        is_table = ending in _TABLE_ENDINGS
        if ending == ".cedar" or entry == SCHEMA_FILE or (is_table and ending != ".yml" and stem in POLICY_FILES):
            try:
                known.append(RawFile(f"{name}/{entry}", _read(path)))
            except OSError as exc:
                raise UnsafeState(f"{path}: {_reason(exc)}; make it readable or remove it") from exc
        elif is_table or ending == ".cedarschema":
            unknown.append(f"{name}/{entry}")
    return tuple(known), tuple(unknown)


def _read(path: Path) -> bytes:
    """A regular file as bytes. Raises: OSError; UnsafeState for a private key that everybody can read."""
    raw, facts = read_regular(path, limit=_MAX_FILE_BYTES)
    if facts.st_mode & _OTHERS and _PRIVATE_KEY in raw:
        raise UnsafeState(f"{path}: a private key that everybody can read; chmod 600 {path}, and replace the key")
    return raw


def _name(source: Path, text: str) -> str:
    """A path as diagnostics show it: relative to edge.yaml where it lies below it."""
    path = resolve(source, text)
    below = os.path.relpath(path, source.parent)
    return path if below.startswith("..") else below


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
