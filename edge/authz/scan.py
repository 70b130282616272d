"""What is looked at before Cedar's own parser sees a policy file: size, nesting, hidden characters, where policies begin.

Cedar's parser is native and recursive: 1000 nested brackets, and likewise a chain of some 1500 operators (`a && a && …`),
overflow its stack and kill the process. It also reports no line numbers. So each file is cut here into its policies, each
with the line it starts on, and whatever could hurt the parser is refused first. The lexical rules are Cedar's: strings
with `\\` escapes, `//` comments that end at a line end, everything else single tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MAX_FILE_BYTES = 256 * 1024
"""Some 1500 policies; a file beyond it is a mistake or an attack."""
MAX_DEPTH = 64
"""Nested brackets of all kinds; the parser dies near 700 on an 8 MiB stack."""
MAX_OPERATORS = 256
"""Operators in one policy, which may form one chain; the parser dies near 1200. Cedar's typed nodes allow 100 levels."""

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+ | //[^\r\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<name>[_A-Za-z][_A-Za-z0-9]*)
      | (?P<number>[0-9]+)
      | (?P<joint>::|,|@)
      | (?P<end>;)
      | (?P<open>[(\[{])
      | (?P<close>[)\]}])
      | (?P<operator>&&|\|\||[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSES = {")": "(", "]": "[", "}": "{"}
_CHAINING_WORDS = frozenset(("if", "has", "like", "in", "is"))
_HIDDEN = frozenset(("Cc", "Cf", "Zl", "Zp"))


@dataclass(frozen=True, slots=True)
class PolicySource:
    """A file as it was read, once."""

    file: str
    """The name that diagnostics show."""
    raw: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """The text of one policy, from its first token to its `;`, and the line it starts on."""

    line: int
    text: str


class ScanError(Exception):
    """The file must not reach the parser. Caught within `authz`, where it becomes a Fault."""

    def __init__(self, line: int, rule: str, message: str, remedy: str) -> None:
        self.line = line
        self.rule = rule
        self.message = message
        self.remedy = remedy
        super().__init__(rule)


def split(raw: bytes) -> tuple[Chunk, ...]:
    """The policies of a file, in order. Text after the last `;` is a chunk of its own, for the parser to refuse.

    Raises:
        ScanError: the file is too large, too deeply nested, holds hidden characters or unbalanced brackets.
    """
    text = _decode(raw)
    chunks: list[Chunk] = []
    begin: tuple[int, int] | None = None
    depth: list[str] = []
    operators = 0
    for line, match in _scan(text):
        if begin is None:
            begin = (line, match.start())
        kind = match.lastgroup
        token = match.group()
        if kind == "open":
            depth.append(token)
            operators += 1
        elif kind == "close":
            if not depth or depth.pop() != _CLOSES[token]:
                raise ScanError(line, "syntax", f"`{token}` closes nothing", "balance the brackets")
        elif kind == "operator" or token in _CHAINING_WORDS:
            operators += 1
        if len(depth) > MAX_DEPTH:
            raise ScanError(
                line,
                "too-deep",
                f"brackets nest deeper than {MAX_DEPTH}",
                "split the policy into several, or use a set",
            )
        if operators > MAX_OPERATORS:
            raise ScanError(
                line, "too-long", f"more than {MAX_OPERATORS} operators in one policy", "split the policy, or use a set"
            )
        if kind == "end" and not depth:
            chunks.append(Chunk(begin[0], text[begin[1] : match.end()]))
            begin, operators = None, 0
    if begin is not None:
        if depth:
            raise ScanError(begin[0], "syntax", f"`{depth[-1]}` is never closed", "balance the brackets")
        chunks.append(Chunk(begin[0], text[begin[1] :]))
    return tuple(chunks)


def tokens(raw: bytes) -> list[tuple[int, str]]:
    """(line, text) of every token that is neither white space nor comment.

    Raises:
        ScanError: the file is too large or holds hidden characters.
    """
    return [(line, match.group()) for line, match in _scan(_decode(raw))]


def _scan(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "blank":
            if match.group() == '"':
                raise ScanError(line, "syntax", "the string is never closed", 'add the closing `"`')
            yield line, match
        line += match.group().count("\n")


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_FILE_BYTES:
        raise ScanError(1, "too-large", f"the file has more than {MAX_FILE_BYTES} bytes", "split it into several files")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ScanError(line, "not-utf-8", "a byte here is not UTF-8", "save the file as UTF-8") from exc
    # A comment ends for Cedar at a carriage return too, and editors draw other marks as line ends or reorder what
    # follows them: a reviewer would read something else than the engine (CVE-2021-42574).
    text = text.replace("\r\n", "\n")
    if not text.isascii() or not text.replace("\n", " ").replace("\t", " ").isprintable():
        for index, char in enumerate(text):
            if char not in "\n\t" and unicodedata.category(char) in _HIDDEN:
                raise ScanError(
                    text.count("\n", 0, index) + 1,
                    "hidden-character",
                    f"U+{ord(char):04X} is invisible or changes the order of what is read",
                    "remove it",
                )
    return text
