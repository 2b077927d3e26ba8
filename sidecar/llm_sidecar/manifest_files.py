"""Reads YAML files into plain documents that still know on which line each field stands.

Nothing here knows what the documents mean. The reading is as Kubernetes reads: no dates, keys are text, and what
would make a document mean different things to different readers (a key twice) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from llm_sidecar.contract.violations import Location, path_of

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""A manifest is written by people; whatever is larger was named by mistake."""

_MAX_NODES: Final = 200_000
"""After aliases are followed: nine lines of YAML can otherwise stand for a billion nodes."""
_MAX_DEPTH: Final = 100

_SUFFIXES: Final = (".yaml", ".yml", ".json")


class Severity(StrEnum):
    """What a problem means for the verdict."""

    ERROR = "error"
    """It does not work like this."""
    WARNING = "warning"
    """It works only with something that these files do not show."""
    NOTE = "note"
    """Worth knowing; nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding, with the place where an editor should jump to."""

    file: str
    line: int
    field: str
    message: str
    fix: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: {self.field}: " if self.field else f"{self.file}:{self.line}: "
        prefix = "" if self.severity is Severity.ERROR else f"{self.severity.value}: "
        return f"{place}{prefix}{self.message}." + (f" Fix: {self.fix}" if self.fix else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a document came from."""

    file: str
    lines: Mapping[Location, int]

    def line(self, location: Location = ()) -> int:
        """The line of a field, or of the nearest thing around it where the field itself is missing."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, message: str, fix: str, severity: Severity = Severity.ERROR) -> Problem:
        """A problem with one field of this document."""
        name = path_of(location) if location else ""
        return Problem(
            file=self.file, line=self.line(location), field=name, message=message, fix=fix, severity=severity
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a file."""

    source: Source
    content: Mapping[str, Any]


class Unreadable(Exception):
    """A path that was named cannot be read at all."""


def read_documents(paths: Iterable[Path], problems: list[Problem]) -> list[Document]:
    """All objects of these files and folders, in order. Appends to `problems`; raises `Unreadable`."""
    return [document for file in manifest_files(paths) for document in _read_file(file, problems)]


def manifest_files(paths: Iterable[Path]) -> list[Path]:
    """The files that these files and folders mean, in order. Raises `Unreadable`."""
    return [file for path in paths for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise Unreadable(f"{path}: holds no {', '.join(_SUFFIXES)} file. Fix: name the folder that holds the manifests")
    return found


def _read_file(path: Path, problems: list[Problem]) -> Iterator[Document]:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise Unreadable(
                f"{path}: has {size} bytes; manifests have at most {MAX_FILE_BYTES}. Fix: name another file"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unreadable(
            f"{path}: cannot be read ({error.strerror}). Fix: check the name and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise Unreadable(f"{path}: is not UTF-8 text. Fix: name a YAML file") from None
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            reading = _Reading(file=str(path), problems=problems)
            content = reading.value(node, ())
            if content is not None:
                yield from _objects(content, Source(file=str(path), lines=reading.lines), problems)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # Only the parser's own words: its snippet of the text may hold a key.
        what = f"is not YAML: {error.problem or 'unreadable'}"
        problems.append(Problem(file=str(path), line=line, field="", message=what, fix="correct the YAML here"))
    except (yaml.YAMLError, _TooLarge, RecursionError):
        what = "is not YAML that can be read: forbidden characters, or nested or aliased without end"
        problems.append(Problem(file=str(path), line=1, field="", message=what, fix="write it plainly"))


def _objects(content: Any, source: Source, problems: list[Problem]) -> Iterator[Document]:
    if not isinstance(content, dict):
        problems.append(source.problem((), "is not an object", "write apiVersion, kind, metadata and spec"))
    elif content.get("kind") == "List" and isinstance(content.get("items"), list):
        for position, item in enumerate(content["items"]):
            prefix: Location = ("items", position)
            lines = {place[2:]: line for place, line in source.lines.items() if place[:2] == prefix}
            yield from _objects(item, Source(file=source.file, lines=lines), problems)
    else:
        yield Document(source=source, content=content)


class _TooLarge(Exception):
    """The document stands for more than any manifest needs."""


class _Loader(yaml.SafeLoader):
    """Reads scalars as Kubernetes does: what looks like a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One document on its way from nodes to values; `lines` fills on the way."""

    file: str
    problems: list[Problem]
    lines: dict[Location, int] = field(default_factory=dict)
    nodes: int = 0
    scalars: _Loader = field(default_factory=lambda: _Loader(""))

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.nodes += 1
        if self.nodes > _MAX_NODES or len(location) > _MAX_DEPTH:
            raise _TooLarge
        self.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*location, position)) for position, item in enumerate(node.value)]
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self.scalars.construct_object(node)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, "unreadable value", node.start_mark) from error

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        own = {id(key) for key, _ in node.value}
        self.scalars.flatten_mapping(node)
        result: dict[str, Any] = {}
        written: set[str] = set()
        for key_node, value_node in node.value:
            key = self._key(key_node)
            place = (*location, key)
            # What a merge (<<) brought in may be overridden; what was written here twice is a mistake.
            if key in written and id(key_node) in own:
                self._duplicate(place, key_node)
            if id(key_node) in own:
                written.add(key)
            self.lines[place] = key_node.start_mark.line + 1
            value = self.value(value_node, place)
            # As in the cluster: a null in place of a field's value means that the field is not there.
            if value is not None:
                result[key] = value
        return result

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be text", node.start_mark)
        key: str = node.value
        return key

    def _duplicate(self, place: Location, node: yaml.Node) -> None:
        self.problems.append(
            Problem(
                file=self.file,
                line=node.start_mark.line + 1,
                field=path_of(place),
                message="stands here twice, and readers differ in which one counts",
                fix="remove one of the two",
            )
        )
