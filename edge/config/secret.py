"""A value that must not be shown. Its bytes are reached by name only, never by formatting, logging or comparing."""

from __future__ import annotations

from typing import final


@final
class Secret:
    """Key material or a password. `repr`, `str` and tracebacks hide it; `reveal()` is easy to search for."""

    __slots__ = ("__raw",)

    def __init__(self, raw: bytes) -> None:
        self.__raw = raw

    def reveal(self) -> bytes:
        return self.__raw

    def __bool__(self) -> bool:
        return bool(self.__raw)

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Secret], tuple[bytes]]:
        """Sources travel to the workers; nothing else pickles one."""
        return Secret, (self.__raw,)
