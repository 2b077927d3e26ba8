"""Taking a document apart without losing a field: what no field of the middle holds is left over, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import NOTHING, Document

_T = TypeVar("_T")


class Fields:
    """Reads the fields of one object, each once; `rest` is what nobody asked for."""

    __slots__ = ("_left", "_where")

    def __init__(self, document: Any, where: str) -> None:
        """`where` names the object in errors, such as `messages[3]`."""
        if not isinstance(document, Mapping):
            raise Undecodable(f"{where} must be an object")
        self._left: dict[str, Any] = dict(document)
        self._where = where

    def take(self, name: str) -> Any:
        """Any value; None where it is absent. A `null` stays in `rest`, so that it is said again."""
        if self._left.get(name) is None:
            return None
        return self._left.pop(name)

    def text(self, name: str) -> str | None:
        """A string. A value of another type is `Undecodable`, as in all of these."""
        return self._typed(name, str, "a string")

    def flag(self, name: str) -> bool | None:
        """True or false."""
        return self._typed(name, bool, "true or false")

    def whole(self, name: str) -> int | None:
        """A whole number."""
        value = self._left.get(name)
        if value is not None and type(value) is not int:
            raise Undecodable(f"{self._where}.{name} must be a whole number")
        return None if value is None else int(self._left.pop(name))

    def number(self, name: str) -> float | None:
        """A number, as it came: 1 and 1.0 stay apart."""
        value = self._left.get(name)
        if value is not None and type(value) not in (int, float):
            raise Undecodable(f"{self._where}.{name} must be a number")
        return None if value is None else self._left.pop(name)

    def object(self, name: str) -> dict[str, Any] | None:
        """An object."""
        return self._typed(name, dict, "an object")

    def array(self, name: str) -> list[Any] | None:
        """An array."""
        return self._typed(name, list, "an array")

    def _typed(self, name: str, kind: type[_T], words: str) -> _T | None:
        value = self._left.get(name)
        if value is None:
            return None
        if not isinstance(value, kind):
            raise Undecodable(f"{self._where}.{name} must be {words}")
        del self._left[name]
        return value

    @property
    def rest(self) -> Document:
        """What was not taken."""
        return self._left or NOTHING
