"""What a validation error says to the person who wrote the document: where, what is wrong, what to do.

Values are never quoted: a field that a key was pasted into by mistake must not carry it into a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llm_sidecar.contract.rules import Rule, RulesBroken

Location = tuple[str | int, ...]
"""Keys and positions from the document's root, in manifest spelling."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a document."""

    location: Location
    message: str
    fix: str

    @property
    def path(self) -> str:
        """The location as people write it: `spec.models[0].name`."""
        return path_of(self.location)


def path_of(location: Location) -> str:
    """`("spec", "models", 0)` as `spec.models[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the document"


def violations_of(error: ValidationError, model: type[BaseModel]) -> list[Violation]:
    """All that pydantic found, in the order of the document's fields."""
    found = error.errors(include_url=False)
    return [violation for details in found if not _follows(details, found) for violation in _translate(details, model)]


def _follows(details: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Pydantic counts only valid items: a list of one invalid item is "too short" as well, which nobody wrote."""
    location = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in found
    )


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that was probably meant."""
    folded = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


_PATH_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def _translate(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Violation]:
    location: Location = details["loc"]
    if details["type"] == RulesBroken.TYPE:
        for rule in details["ctx"]["rules"]:
            yield Violation((*location, *_relative(rule)), rule.message, rule.fix)
    elif details["type"] == "extra_forbidden":
        yield _unknown_field(location, model)
    elif details["type"] in ("enum", "literal_error"):
        yield _unknown_value(location, details)
    else:
        message, fix = _WORDS.get(details["type"], _in_pydantics_words)(details)
        yield Violation(location, message, fix)


def _relative(rule: Rule) -> Iterator[str | int]:
    for position, name in _PATH_PART.findall(rule.field or ""):
        yield int(position) if position else name


def _unknown_field(location: Location, model: type[BaseModel]) -> Violation:
    owner = model_at(model, location[:-1])
    known = sorted(field.alias or name for name, field in owner.model_fields.items()) if owner else []
    meant = nearest(str(location[-1]), known)
    fix = f"did you mean {meant}?" if meant else f"remove it; known here are {', '.join(known)}"
    return Violation(location, "unknown field", fix)


def _unknown_value(location: Location, details: ErrorDetails) -> Violation:
    choices = re.findall(r"'([^']*)'", details["ctx"]["expected"])
    given = details["input"].value if isinstance(details["input"], Enum) else details["input"]
    meant = nearest(given, choices) if isinstance(given, str) else None
    return Violation(
        location,
        f"unsupported value; supported are {', '.join(choices)}",
        f"did you mean {meant}?" if meant else "write one of them, in this spelling",
    )


def model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model that a location inside a document of `model` leads to."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and current is not None:
            fields = current.model_fields.values()
            current = next((_model_inside(field.annotation) for field in fields if field.alias == part), None)
    return current


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_inside(argument))), None)


def _in_pydantics_words(details: ErrorDetails) -> tuple[str, str]:
    # Its messages describe the expectation; those which quote the input are all translated above or below.
    return details["msg"][:1].lower() + details["msg"][1:], "correct the value"


def _at_least(details: ErrorDetails) -> tuple[str, str]:
    return f"should be greater than or equal to {details['ctx']['ge']}", "use a larger number"


def _at_most(details: ErrorDetails) -> tuple[str, str]:
    return f"should be less than or equal to {details['ctx']['le']}", "use a smaller number"


def _text_too_long(details: ErrorDetails) -> tuple[str, str]:
    return f"may not be longer than {details['ctx']['max_length']} characters", "shorten it"


def _list_too_long(details: ErrorDetails) -> tuple[str, str]:
    return f"must have at most {details['ctx']['max_length']} items", "remove some"


def _list_too_short(details: ErrorDetails) -> tuple[str, str]:
    return f"must have at least {details['ctx']['min_length']} items", "add one, or remove the field"


def _not_matching(details: ErrorDetails) -> tuple[str, str]:
    return f"should match {details['ctx']['pattern']}", "use other characters"


def _fixed(message: str, fix: str) -> Callable[[ErrorDetails], tuple[str, str]]:
    return lambda _details: (message, fix)


_WHOLE_NUMBER: Final = _fixed("must be a whole number", "write it without quotes, unit and decimals")
_LIST: Final = _fixed("must be a list", "write one item per line, each after a hyphen")
_OBJECT: Final = _fixed("must be an object", "write its fields below it, indented")

_WORDS: Final[Mapping[str, Callable[[ErrorDetails], tuple[str, str]]]] = {
    "bool_type": _fixed("must be true or false", "write it without quotes"),
    "dict_type": _OBJECT,
    "greater_than_equal": _at_least,
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing_size": _WHOLE_NUMBER,
    "int_type": _WHOLE_NUMBER,
    "less_than_equal": _at_most,
    "list_type": _LIST,
    "mapping_type": _OBJECT,
    "missing": _fixed("required value", "add it"),
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "string_pattern_mismatch": _not_matching,
    "string_too_long": _text_too_long,
    "string_too_short": _fixed("must not be empty", "write a value, or remove the field"),
    "string_type": _fixed("must be text", 'put it in quotes, like "1"'),
    "too_long": _list_too_long,
    "too_short": _list_too_short,
    "tuple_type": _LIST,
}
