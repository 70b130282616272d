"""In which order a file's tests are collected. The processes that share the suite must find the same, and each has a hash
seed of its own, which puts sets of strings and bytes in an order of its own.

What a test is parametrized over is looked at as it is written: literals, what is sorted, enumerations, and what is made of
these, in its own module or imported from another. Of anything else nobody knows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache

from tests.architecture.source import ROOT

ORDERED = ("sorted", "range", "permutations", "product", "get_args")
KEEPING = ("list", "tuple", "dict", "enumerate", "zip", "chain")


def parametrizations(module: ast.Module) -> Iterator[ast.expr]:
    """What tests and fixtures are made for."""
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            if call.func.attr == "parametrize" and len(call.args) > 1:
                yield call.args[1]
            elif call.func.attr == "fixture":
                yield from (each.value for each in call.keywords if each.arg == "params")


def is_in_order(value: ast.expr, module: ast.Module) -> bool:
    """Is it certain that each process has these values in the same order?"""
    match value:
        case ast.Constant():
            return True
        case ast.List(each) | ast.Tuple(each):
            return all(is_in_order(one.value, module) for one in each if isinstance(one, ast.Starred))
        case ast.Dict(keys, values):
            return all(is_in_order(one, module) for key, one in zip(keys, values, strict=True) if key is None)
        case ast.Call(ast.Name(name)) if name in ORDERED:
            return True
        case ast.Call(ast.Name(name), arguments) if name in KEEPING:
            return all(is_in_order(one, module) for one in arguments)
        case ast.Call(ast.Attribute(of, "items" | "values" | "keys"), []):
            return is_in_order(of, module)
        case ast.ListComp(generators=parts) | ast.DictComp(generators=parts) | ast.GeneratorExp(generators=parts):
            return all(is_in_order(part.iter, module) for part in parts)
        case ast.Subscript(of, ast.Slice()):
            return is_in_order(of, module)
        case ast.BinOp(left, ast.Add() | ast.BitOr(), right):  # of lists, and of mappings
            return is_in_order(left, module) and is_in_order(right, module)
        case ast.Name(name):
            return _is_name_in_order(name, module)
        case ast.Attribute(ast.Name(room), name):
            found = _imported(module).get(room)
            return found is not None and (there := _parsed(found)) is not None and _is_name_in_order(name, there)
    return False


def _is_name_in_order(name: str, module: ast.Module) -> bool:
    for statement in module.body:
        match statement:
            case ast.ClassDef(defined, bases) if defined == name:
                return any(isinstance(base, ast.Name) and base.id in ("Enum", "StrEnum", "IntEnum") for base in bases)
            case ast.Assign([ast.Name(defined)], value) if defined == name:
                return is_in_order(value, module)
            case ast.AnnAssign(ast.Name(defined), _, ast.expr() as value) if defined == name:
                return is_in_order(value, module)
    found = _imported(module).get(name)
    there = None if found is None else _parsed(found.rpartition(".")[0])
    return there is not None and _is_name_in_order(name, there)


def _imported(module: ast.Module) -> Mapping[str, str]:
    """Name here → dotted name, of what is imported from elsewhere in the repository."""
    return {
        alias.asname or alias.name: f"{each.module}.{alias.name}"
        for each in module.body
        if isinstance(each, ast.ImportFrom) and each.module
        for alias in each.names
    }


@cache
def _parsed(dotted: str) -> ast.Module | None:
    path = ROOT.joinpath(*dotted.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text())
    return None


def uncertain(code: str) -> list[str]:
    """What tests of this module are parametrized over without it being certain in which order."""
    module = ast.parse(code)
    return [ast.unparse(each) for each in parametrizations(module) if not is_in_order(each, module)]
