"""Reading and writing objects whose fields may be spelled in two ways, without losing which one it was.

Google's APIs read JSON as protobuf does: a field is `maxOutputTokens` or `max_output_tokens`, and a repeated one that
has a single element may be given without its brackets. Here fields go by their camelCase path (`a.b` for `b` in the
object `a`); how each was spelled is kept under `$` names in the `extra` of the node that was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.parts import NOTHING, Document
from llm_sidecar.translation.reading import Fields

_SNAKE: Final = "$snake"
"""Paths of the fields that were written in snake_case."""
_PRESENT: Final = "$present"
"""Paths of the objects and arrays that were there: they may have been empty."""
_SINGLE: Final = "$single"
"""Paths of the arrays that were given as their only element."""
_CAPITAL: Final = re.compile("[A-Z]")


class SpelledFields:
    """Reads one object, as `Fields` does, in either spelling; `extra` is what nobody asked for, and the spelling."""

    __slots__ = ("_document", "_extra", "_fields", "_marks", "_nested", "_path", "_where")

    def __init__(self, document: Any, where: str, *, path: str = "", marks: dict[str, set[str]] | None = None) -> None:
        """`where` names the object in errors, such as `contents[3]`. `path` and `marks` are for `container` alone."""
        self._fields = Fields(document, where)
        self._document: Mapping[str, Any] = document
        self._where = where
        self._path = path
        self._marks: dict[str, set[str]] = {} if marks is None else marks
        self._nested: list[SpelledFields] = []
        self._extra: dict[str, Any] = {}

    def peek(self, name: str) -> Any:
        """The value, without taking it."""
        return self._document.get(self._spelled(name))

    def take(self, name: str) -> Any:
        """Any value; see `Fields`, here and below."""
        return self._fields.take(self._mark(name))

    def text(self, name: str) -> str | None:
        """A string."""
        return self._fields.text(self._mark(name))

    def flag(self, name: str) -> bool | None:
        """True or false."""
        return self._fields.flag(self._mark(name))

    def whole(self, name: str) -> int | None:
        """A whole number."""
        return self._fields.whole(self._mark(name))

    def number(self, name: str) -> float | None:
        """A number, as it came."""
        return self._fields.number(self._mark(name))

    def object(self, name: str) -> dict[str, Any] | None:
        """An object."""
        return self._fields.object(self._mark(name))

    def whole_object(self, name: str) -> dict[str, Any]:
        """An object whose fields mean nothing here; an empty one if it is absent."""
        value = self.object(name)
        if value is not None:
            self._note(_PRESENT, name)
        return value or {}

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings; none if it is absent."""
        values = self._fields.array(self._mark(name))
        if values is None:
            return ()
        if not all(isinstance(value, str) for value in values):
            raise Undecodable(f"{self._where}.{name} must be an array of strings")
        self._note(_PRESENT, name)
        return tuple(values)

    def repeated(self, name: str) -> list[Any]:
        """An array of objects, or its only element; none if it is absent."""
        spelled = self._mark(name)
        value = self._document.get(spelled)
        if isinstance(value, dict):
            self._note(_SINGLE, name)
            return [self._fields.take(spelled)]
        values = self._fields.array(spelled)
        if values is None:
            return []
        self._note(_PRESENT, name)
        return values

    def container(self, name: str) -> SpelledFields:
        """An object whose fields belong to this node; one without fields if it is absent."""
        value = self.object(name)
        if value is not None:
            self._note(_PRESENT, name)
        where = f"{self._where}.{name}"
        nested = SpelledFields(value or {}, where, path=f"{self._path}{name}.", marks=self._marks)
        self._nested.append(nested)
        return nested

    def keep(self, name: str, value: Any) -> None:
        """Something for `extra` beyond the leftovers; a None says nothing."""
        if value is not None:
            self._extra[name] = value

    @property
    def left(self) -> Document:
        """What was not taken, under the names in the document."""
        return self._fields.rest

    @property
    def extra(self) -> Document:
        """What was not taken, of the objects within too, under its path; what was kept; the spelling."""
        extra = self.leftovers() | self._extra
        extra.update({name: frozenset(paths) for name, paths in self._marks.items()})
        return extra or NOTHING

    def leftovers(self) -> dict[str, Any]:
        """What was not taken here and in the objects within, under its path."""
        found = {f"{self._path}{name}": value for name, value in self._fields.rest.items()}
        for nested in self._nested:
            found |= nested.leftovers()
        return found

    def _spelled(self, name: str) -> str:
        if self._document.get(name) is None:
            snake = snake_case(name)
            if self._document.get(snake) is not None:
                return snake
        return name

    def _mark(self, name: str) -> str:
        spelled = self._spelled(name)
        if spelled != name:
            self._note(_SNAKE, name)
        return spelled

    def _note(self, mark: str, name: str) -> None:
        self._marks.setdefault(mark, set()).add(self._path + name)


class SpelledObject:
    """Writes one object as its node's `extra` says that it was spelled, and puts the leftovers back."""

    __slots__ = ("_extra", "_present", "_single", "_snake", "document")

    def __init__(self, extra: Document = NOTHING) -> None:
        """`extra` of this API's own node; nothing for a node of another one."""
        self._extra = extra
        self._snake: frozenset[str] = extra.get(_SNAKE, frozenset())
        self._present: frozenset[str] = extra.get(_PRESENT, frozenset())
        self._single: frozenset[str] = extra.get(_SINGLE, frozenset())
        self.document: dict[str, Any] = {}

    def put(self, path: str, value: Any) -> None:
        """A field; nothing is written for None."""
        if value is not None:
            self._holder(path)[self._spelled(path)] = value

    def put_array(self, path: str, values: Iterable[Any]) -> None:
        """An array; an empty one only where it was there."""
        listed = list(values)
        if path in self._single and len(listed) == 1:
            self.put(path, listed[0])
        elif listed or path in self._present:
            self.put(path, listed)

    def put_object(self, path: str, value: Mapping[str, Any]) -> None:
        """An object made elsewhere; an empty one only where it was there."""
        if value or path in self._present:
            self.put(path, value)

    def finish(self, *containers: str) -> dict[str, Any]:
        """The object, with the leftovers. `containers`: paths of the objects within, the outer ones first."""
        for path in containers:
            if path in self._present:
                self._holder(f"{path}.")
        for path, value in self._extra.items():
            if path.startswith("$"):
                continue
            inner = next((each for each in reversed(containers) if path.startswith(f"{each}.")), None)
            holder = self.document if inner is None else self._holder(f"{inner}.")
            # A leftover name stands as it was spelled, and may hold a dot itself.
            holder[path if inner is None else path[len(inner) + 1 :]] = value
        return self.document

    def _holder(self, path: str) -> dict[str, Any]:
        holder = self.document
        names = path.split(".")[:-1]
        for depth, _ in enumerate(names):
            holder = holder.setdefault(self._spelled(".".join(names[: depth + 1])), {})
        return holder

    def _spelled(self, path: str) -> str:
        name = path.rpartition(".")[2]
        return snake_case(name) if path in self._snake else name


@cache
def snake_case(name: str) -> str:
    """`maxOutputTokens` as `max_output_tokens`. Only for names that are written in this code: each is remembered."""
    return _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)
