"""The three files of the policy directory as documents, and the entries in each; what is wrong in one entry stays there.

Each entry is fitted to its shape alone, so that one broken route does not hide what is wrong with the next. A file that
could not be read whole says so (`is_whole`): whoever looks up a name in it must not report the name as unknown then.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.config import document
from edge.config.document import Document, Step
from edge.config.sources import POLICY_FILES, SCHEMA_FILE, RawFile, Sources
from edge.errors import Fault


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One of the three files."""

    document: Document
    ways: tuple[tuple[Step, ...], ...]
    """Where each entry stands."""
    is_whole: bool
    """False: entries may be missing from `ways`, and the reason is among the faults."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyFiles:
    """The policy directory."""

    services: Table
    routes: Table
    limits: Table
    schema: RawFile | None
    cedar: tuple[RawFile, ...]


def read(sources: Sources, edge: Document, faults: list[Fault]) -> PolicyFiles:
    """`edge` is edge.yaml, where a missing directory is reported."""
    if not sources.policies:
        message = f"no policy files in {sources.policies_name}"
        faults.append(
            edge.fault(("policies",), "missing-file", message, "correct the path, or copy what edge init makes")
        )
    else:
        names = {file.name for file in sources.policies}
        for name in (*(f"{each}.yaml" for each in POLICY_FILES), SCHEMA_FILE):
            path = f"{sources.policies_name}/{name}"
            if path not in names and path.replace(".yaml", ".json") not in names:
                remedy = f"write one; {_EMPTY[name]} is enough" if name in _EMPTY else "copy the one of edge init"
                faults.append(Fault(path, 1, 1, "missing-file", "there is no such file", remedy))
            elif path.endswith(".yaml") and {path, path.replace(".yaml", ".json")} <= names:
                faults.append(Fault(path, 1, 1, "duplicate-file", "it is there as .json too", "keep one of them"))
    for name in sources.unknown:
        known = ", ".join(f"{each}.yaml" for each in POLICY_FILES)
        faults.append(Fault(name, 1, 1, "unknown-file", f"not one of {known}", "rename it, or move it elsewhere"))
    schema_name = f"{sources.policies_name}/{SCHEMA_FILE}"
    return PolicyFiles(
        services=_table(sources, "services", faults),
        routes=_table(sources, "routes", faults),
        limits=_table(sources, "limits", faults),
        schema=next((file for file in sources.policies if file.name == schema_name), None),
        cedar=tuple(file for file in sources.policies if file.name.endswith(".cedar")),
    )


_EMPTY = {"services.yaml": "services: {}", "routes.yaml": "routes: []", "limits.yaml": "limits: []"}


def _table(sources: Sources, stem: str, faults: list[Fault]) -> Table:
    file = sources.policy(stem)
    if file is None:
        return Table(Document(f"{sources.policies_name}/{stem}.yaml", None, ()), (), is_whole=False)
    table = document.read(file.name, file.raw)
    faults += table.faults
    if table.root is None:
        return Table(table, (), is_whole=False)
    empty = _EMPTY[f"{stem}.yaml"]
    if table.root.entries is None:
        faults.append(table.fault((), "wrong-type", f'expected a table with the key "{stem}"', f"write {empty}"))
        return Table(table, (), is_whole=False)
    for key in table.root.entries:
        if key != stem:
            faults.append(table.fault((key,), "unknown-key", "no such setting", f"allowed: {stem}", at_key=True))
    body = table.node((stem,))
    is_list = empty.endswith("[]")
    if body is None:
        faults.append(table.fault((stem,), "missing-key", "this key is required", f"write {empty}"))
    elif is_list and isinstance(body.value, tuple):
        return Table(table, tuple((stem, at) for at in range(len(body.items))), is_whole=True)
    elif not is_list and body.entries is not None:
        return Table(table, tuple((stem, name) for name in body.entries), is_whole=True)
    else:
        expected = "a list" if is_list else "a table of names"
        faults.append(table.fault((stem,), "wrong-type", f"expected {expected}", f"write {empty}"))
    return Table(table, (), is_whole=False)
