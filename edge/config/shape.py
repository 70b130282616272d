"""How a table of a file is declared, and how what does not fit it becomes a diagnostic.

Every setting is one field of a `Shape` with its type, default, unit and reason. Pydantic walks it (strictly: no text for a
number, unknown keys fatal, all errors at once) and can print it as JSON Schema; the words of a diagnostic are ours, given by
`Expect` beside the type:

    routes.yaml:14:17: wrong-value: routes[3].upstream.timeout_s: expected a number of seconds > 0, got "5s"; write 5.0
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from edge.config.document import Document, Step
from edge.errors import Fault


class Shape(BaseModel):
    """Base of all tables. The one use of inheritance here, because pydantic works by it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Expect:
    """What a value should have been, in words, and a valid one to write; stands in `Annotated` after the checks."""

    what: str
    example: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def translate(value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
            try:
                return inner(value)
            except ValidationError as exc:
                details = exc.errors(include_url=False)
                if any(each["loc"] for each in details):
                    raise  # something inside is wrong, and has said so
                detail = details[0]
                why = f" ({detail['msg']})" if detail["type"] == _CHECK else ""
                raise _wrong(f"expected {self.what}, got {_shown(value)}{why}", f"write {self.example}") from exc

        return core_schema.no_info_wrap_validator_function(translate, handler(source))


_CHECK = "edge_check"
_WRONG = "edge_wrong"


def _wrong(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError(_WRONG, "{message}", {"message": message, "remedy": remedy})


def check(test: Callable[[str], str | None]) -> AfterValidator:
    """A rule for a text: `test` gives None, or what is wrong with it in a few words."""

    def apply(value: str) -> str:
        flaw = test(value)
        if flaw is not None:
            raise PydanticCustomError(_CHECK, "{flaw}", {"flaw": flaw})
        return value

    return AfterValidator(apply)


def pattern(expression: str) -> AfterValidator:
    """A text that matches as a whole."""
    compiled = re.compile(expression)
    return check(lambda value: None if compiled.fullmatch(value) else "characters outside the allowed set")


T = TypeVar("T", bound=Shape)


def fit(shape: type[T], document: Document, way: Sequence[Step], faults: list[Fault]) -> T | None:
    """The table at `way` as a value of `shape`; or None, and why among `faults`."""
    node = document.node(way)
    try:
        return shape.model_validate(node.value if node is not None else None)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        for error in errors:
            if error["type"] == "too_short" and _has_inner(errors, error["loc"]):
                continue  # pydantic counts the good items only: the bad ones have said what is wrong
            inside = _steps(error["loc"])
            faults.append(_fault(shape, document, _written(document, way, inside), inside, error))
        return None


def _written(document: Document, way: Sequence[Step], inside: Sequence[Step]) -> tuple[Step, ...]:
    """Where `inside` stands below `way` in the file: where one table stands for a list of one, there is no index."""
    written = tuple(way)
    for step in inside:
        node = document.node(written)
        if not (isinstance(step, int) and node is not None and node.entries is not None):
            written = (*written, step)
    return written


def _has_inner(errors: list[ErrorDetails], location: tuple[int | str, ...]) -> bool:
    depth = len(location)
    return any(len(each["loc"]) > depth and each["loc"][:depth] == location for each in errors)


def _steps(location: tuple[int | str, ...]) -> tuple[Step, ...]:
    """Pydantic marks a bad key of a mapping by a further step `[key]`."""
    return tuple(step for step in location if step != "[key]")


def _fault(
    shape: type[Shape], document: Document, way: tuple[Step, ...], inside: Sequence[Step], error: ErrorDetails
) -> Fault:
    """`way` is the place in the file, `inside` the one in the shape."""
    kind = error["type"]
    if kind == _WRONG:
        context = error["ctx"]
        return document.fault(way, "wrong-value", context["message"], context["remedy"])
    if kind == "missing":
        return document.fault(way, "missing-key", "this key is required", f"add {way[-1]}:")
    if kind == "extra_forbidden":
        known = _keys(shape, inside[:-1])
        near = difflib.get_close_matches(str(way[-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}" if known else "remove it"
        return document.fault(way, "unknown-key", "no such setting", remedy, at_key=True)
    if kind in _KINDS:
        expected, remedy = _KINDS[kind]
        return document.fault(way, "wrong-type", f"expected {expected}, got {_shown(error['input'])}", remedy)
    if kind == "literal_error":
        words = error["ctx"]["expected"].replace("'", "")
        message = f"expected {words}, got {_shown(error['input'])}"
        return document.fault(way, "wrong-value", message, "write one of these words")
    return document.fault(way, "wrong-value", error["msg"], "correct the value")


_KINDS = {
    "model_type": ("a table of keys and values", "write {key: value}"),
    "dict_type": ("a table of keys and values", "write {key: value}"),
    "tuple_type": ("a list", "put it into [ ]"),
    "string_type": ("a text", "put it into quotes"),
    "bool_type": ("true or false", "write true or false"),
    "int_type": ("a whole number", "write digits without quotes"),
    "float_type": ("a number", "write digits without quotes"),
}


def _shown(value: object) -> str:
    """What was found, short; scalars as they would be written in JSON."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f'{text[:56]}…"'


def _keys(shape: type[Shape], way: Sequence[Step]) -> list[str]:
    """The keys that the table at `way` inside `shape` may have."""
    found: object = shape
    for step in way:
        found = _inner(found, step)
    table = _table(found)
    return list(table.model_fields) if table is not None else []


def _inner(annotation: object, step: Step) -> object:
    table = _table(annotation)
    if table is not None and isinstance(step, str):
        field = table.model_fields.get(step)
        return field.annotation if field is not None else None
    arguments = [each for each in get_args(_plain(annotation)) if each is not Ellipsis]
    return arguments[-1] if arguments else None


def _table(annotation: object) -> type[Shape] | None:
    plain = _plain(annotation)
    return plain if isinstance(plain, type) and issubclass(plain, Shape) else None


def _plain(annotation: object) -> object:
    """Without `Annotated` and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _plain(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation
