"""The source tree as syntax trees, and the rules of the house as functions over it.

The rules live here so that each test can show two things: that the tree keeps the rule, and that the rule notices when a
piece of code breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

SHELLS = (
    "edge/serve/",
    "edge/front/",
    "edge/control/",
    "edge/cli/",
    "edge/dataplane.py",
    "edge/exchange.py",
    "edge/account.py",
    "edge/verify/asgi.py",
    "edge/verify/wsgi.py",
    "edge/tunnel.py",
    "edge/upgrade.py",
    "edge/downstream.py",
    "edge/timers.py",
    "edge/assemble.py",
    "edge/__main__.py",
    "edge/accept/hypercorn_",
    "edge/audit/notary.py",
    "edge/forward/http1.py",
    "edge/forward/websocket.py",
    "edge/forward/asgi.py",
)
"""What may await, open, connect, sleep or read a clock, beside every module named io_*."""

IMPURE_MODULES = frozenset(
    [
        "asyncio",
        "time",
        "random",
        "secrets",
        "logging",
        "socket",
        "selectors",
        "subprocess",
        "threading",
        "multiprocessing",
        "signal",
        "uvloop",
        "aiohttp",
        "structlog",
        "tempfile",
        "shutil",
        "fcntl",
        "mmap",
        "sqlite3",
        "valkey",
    ]
)
IMPURE_CALLS = frozenset(("open", "print", "input"))
IMPURE_ATTRIBUTES = frozenset(("environ", "getenv", "urandom", "write_bytes", "write_text", "read_bytes", "read_text"))


def modules(*packages: str) -> Iterator[Path]:
    """Every Python file below the packages, relative to the root."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def is_shell(path: Path) -> bool:
    text = path.as_posix()
    return path.name.startswith("io_") or any(text == shell or text.startswith(shell) for shell in SHELLS)


def impurities(module: ast.Module) -> list[str]:
    """What a pure module may not do, as `line: what`."""
    found: list[str] = []
    for node in ast.walk(module):
        what: str | None = None
        if isinstance(node, ast.Import):
            what = next((a.name for a in node.names if a.name.split(".")[0] in IMPURE_MODULES), None)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            what = node.module if (node.module or "").split(".")[0] in IMPURE_MODULES else None
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            what = "async"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            what = node.func.id
        elif isinstance(node, ast.Attribute) and node.attr in IMPURE_ATTRIBUTES:
            what = node.attr
        if what is not None:
            found.append(f"{getattr(node, 'lineno', 0)}: {what}")
    return found


def imports_of(module: ast.Module) -> set[str]:
    """Full names of the modules that are imported, wherever it stands; of `from a import b` both `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def calls_of(module: ast.Module, name: str) -> list[int]:
    """Lines where `name(...)` is called, bare or as an attribute."""
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == name)
            or (isinstance(node.func, ast.Attribute) and node.func.attr == name)
        )
    ]


def broad_handlers(module: ast.Module) -> list[int]:
    """Lines of `except:`, `except Exception` and `except BaseException`."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            names = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(
                name is None or (isinstance(name, ast.Name) and name.id in ("Exception", "BaseException"))
                for name in names
            ):
                found.append(node.lineno)
    return found


def long_functions(module: ast.Module, limit: int = 60) -> list[str]:
    return [
        f"{node.name} ({node.end_lineno - node.lineno + 1})"
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > limit
    ]
