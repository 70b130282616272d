"""YAML (and so JSON) → a tree of values that remembers where each stood. No other file of the gateway reads YAML.

Stock YAML has readings that surprise: `no` is false, `012` is ten, `1:30` is ninety, the last of two equal keys wins, and
nine anchors expand to a gigabyte. So the events of libyaml are composed here, with the scalars of YAML 1.2's core schema,
and everything that is read in two ways is a fault:

- duplicate keys, keys that are not plain text (`? [a]`)
- anchors, aliases, tags, a second document
- more than MAX_BYTES, MAX_DEPTH or MAX_NODES

Faults that make the rest of the file doubtful (syntax, anchors, sizes) end its reading; `root` is None then, and whoever
checks one file against another must leave it out, so that one mistake gives one line. Line and column count from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from edge.errors import Fault

MAX_BYTES = 8 << 20
MAX_DEPTH = 24
MAX_NODES = 400_000

Value = None | bool | int | float | str | tuple["Value", ...] | dict[str, "Value"]
Step = str | int
"""One step of the way to a node: a key of a mapping or an index of a sequence."""


@dataclass(slots=True, eq=False)
class Node:
    """One value and its place."""

    line: int
    column: int
    value: Value
    """Scalars as Python values, sequences as tuples, mappings as dicts."""
    items: tuple[Node, ...] = ()
    entries: dict[str, tuple[Node, Node]] | None = None
    """Of a mapping: key → (the key's node, the value's node)."""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One file as read. `root` is None when reading stopped; the reason is among the faults."""

    file: str
    root: Node | None
    faults: tuple[Fault, ...]

    @property
    def value(self) -> Value:
        return self.root.value if self.root is not None else None

    def node(self, way: Sequence[Step]) -> Node | None:
        """The node at `way`, or None."""
        found = self.root
        for step in way:
            if found is None:
                return None
            if isinstance(step, int):
                found = found.items[step] if step < len(found.items) else None
            else:
                found = (found.entries or {}).get(step, (None, None))[1]
        return found

    def place(self, way: Sequence[Step]) -> tuple[int, int]:
        """Where the value at `way` stands, or the nearest thing around it that exists."""
        for length in range(len(way), -1, -1):
            found = self.node(way[:length])
            if found is not None:
                return found.line, found.column
        return 1, 1

    def key_place(self, way: Sequence[Step]) -> tuple[int, int]:
        """Where the key stands that `way` ends with."""
        parent = self.node(way[:-1])
        if parent is not None and parent.entries and isinstance(way[-1], str) and way[-1] in parent.entries:
            key = parent.entries[way[-1]][0]
            return key.line, key.column
        return self.place(way)

    def fault(self, way: Sequence[Step], rule: str, message: str, remedy: str, *, at_key: bool = False) -> Fault:
        """A fault of the value (or key) at `way`; the message starts with its written-out place."""
        line, column = self.key_place(way) if at_key else self.place(way)
        spelled = spell(way)
        return Fault(self.file, line, column, rule, f"{spelled}: {message}" if spelled else message, remedy)


def spell(way: Sequence[Step]) -> str:
    """("routes", 3, "upstream") → `routes[3].upstream`."""
    text = ""
    for step in way:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


class _Stop(Exception):
    """Reading cannot go on; carries the fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


def read(file: str, raw: bytes) -> Document:
    """`file` is the name that faults show. Never raises: what is wrong is in `faults`."""
    composer = _Composer(file)
    try:
        root = composer.compose(raw)
    except _Stop as stop:
        return Document(file, None, (*composer.faults, stop.fault))
    return Document(file, root, tuple(composer.faults))


class _Composer:
    """Events → nodes. One per file; holds the faults that do not stop the reading, and what is left of the budget."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self._nodes_left = MAX_NODES

    def compose(self, raw: bytes) -> Node:
        if len(raw) > MAX_BYTES:
            raise _Stop(self._fault((1, 1), "too-large", f"{len(raw)} bytes", f"stay within {MAX_BYTES}"))
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            line = raw.count(b"\n", 0, exc.start) + 1
            raise _Stop(self._fault((line, 1), "syntax", "not UTF-8", "save the file as UTF-8")) from exc
        try:
            return self._document(yaml.parse(text, Loader=yaml.CSafeLoader))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            problem = " ".join(each for each in (exc.context, exc.problem) if each)
            raise _Stop(self._fault(place, "syntax", problem or "not YAML", "correct the YAML")) from exc
        except yaml.YAMLError as exc:  # the reader below the parser: a character that YAML forbids
            line, column = _first_forbidden(text)
            fault = self._fault((line, column), "syntax", "a character that YAML does not allow", "remove it")
            raise _Stop(fault) from exc

    def _document(self, events: Iterator[yaml.Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise _Stop(self._at(event, "syntax", "a second document starts", "keep one document in a file"))
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, 0)
        return root or Node(1, 1, None)

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        self._nodes_left -= 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Stop(self._at(event, "anchor", "anchors and aliases are not allowed", "write the value out"))
        if getattr(event, "tag", None) is not None:
            raise _Stop(self._at(event, "tag", f'the tag "{_tag(event)}" is not allowed', "remove it; quote texts"))
        if depth > MAX_DEPTH:
            raise _Stop(self._at(event, "too-deep", f"nested deeper than {MAX_DEPTH}", "flatten it"))
        if self._nodes_left < 0:
            raise _Stop(self._at(event, "too-large", f"more than {MAX_NODES} values", "split the file"))
        line, column = _place(event)
        if isinstance(event, yaml.ScalarEvent):
            return Node(line, column, self._scalar(event))
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            for inner in events:
                if isinstance(inner, yaml.SequenceEndEvent):
                    break
                items.append(self._node(inner, events, depth + 1))
            return Node(line, column, tuple(item.value for item in items), items=tuple(items))
        entries = self._entries(events, depth)
        return Node(line, column, {key: value.value for key, (_, value) in entries.items()}, entries=entries)

    def _entries(self, events: Iterator[yaml.Event], depth: int) -> dict[str, tuple[Node, Node]]:
        entries: dict[str, tuple[Node, Node]] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if not isinstance(event, yaml.ScalarEvent):
                self.faults.append(self._at(event, "key-type", "a key is not text", "write a plain word as the key"))
                continue
            name: str = event.value
            if name in entries:
                first = entries[name][0]
                self.faults.append(
                    self._at(
                        event,
                        "duplicate-key",
                        f'"{name}" stands here for the second time (first in line {first.line})',
                        "keep one of them",
                    )
                )
                continue
            entries[name] = (key, value)
        return entries

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text: str = event.value
        if not event.implicit[0]:
            return text  # quoted and block scalars are texts
        try:
            return resolve(text)
        except ValueError:
            self.faults.append(self._at(event, "number", f"a number of {len(text)} characters", "write a smaller one"))
            return 0

    def _at(self, event: yaml.Event, rule: str, message: str, remedy: str) -> Fault:
        return self._fault(_place(event), rule, message, remedy)

    def _fault(self, place: tuple[int, int], rule: str, message: str, remedy: str) -> Fault:
        return Fault(self.file, *place, rule, message, remedy)


_WORDS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9A-Fa-f]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_MAX_DIGITS = 30


def resolve(text: str) -> Value:
    """A plain scalar by the core schema of YAML 1.2 (§10.3.2), without infinities and NaN, which no setting can mean.

    Raises: ValueError for a number of more than 30 characters.
    """
    if text in _WORDS:
        return _WORDS[text]
    for pattern, number in ((_DECIMAL, 10), (_OCTAL, 8), (_HEXADECIMAL, 16), (_FLOAT, 0)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise ValueError(text)
            return int(text, number) if number else float(text)
    return text


def _tag(event: yaml.Event) -> str:
    return str(getattr(event, "tag", "")).replace("tag:yaml.org,2002:", "!!")[:60]


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _first_forbidden(text: str) -> tuple[int, int]:
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    start = found.start() if found else 0
    return text.count("\n", 0, start) + 1, start - (text.rfind("\n", 0, start) + 1) + 1
