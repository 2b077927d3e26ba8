"""Rules that a plain schema cannot say, each told once: the CEL for the API server, the same in Python, the message.

`llm-sidecar check` thereby refuses what the cluster would refuse, in the cluster's own words. Patterns here are
written in the common subset of RE2 (CEL, OpenAPI) and Python: no classes by letter, no look-around.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule about one value. Put it into `Annotated[...]` of a field, or into `rules` of a `ContractModel`."""

    expression: str
    """CEL; `self` is the value."""
    holds: Callable[[Any], bool]
    """The same in Python; it sees the validated value."""
    message: str
    """What is wrong, without the field's name, which the reader is told beside it."""
    fix: str
    """What to do about it."""
    field: str | None = None
    """For a rule about an object: the field to blame, relative to it, in manifest spelling."""

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        validation = {"rule": self.expression, "message": f"{self.message}. Fix: {self.fix}"}
        # The API server lets a path lead only to fields of the schema, and metadata's are not in it.
        if self.field is not None and not self.field.startswith("metadata"):
            validation["fieldPath"] = f".{self.field}"
        return validation

    def check(self, value: Any) -> Any:
        """Return the value, or raise what pydantic turns into a located error."""
        if not self.holds(value):
            raise RulesBroken.error((self,))
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema.setdefault(VALIDATIONS, []).append(self.as_validation())
        return json_schema


class RulesBroken:
    """How broken rules travel through pydantic: one error of this type, the rules in its context."""

    TYPE: ClassVar = "contract_rules_broken"

    @classmethod
    def error(cls, rules: Iterable[Rule]) -> PydanticCustomError:
        """The error to raise inside a validator."""
        broken = tuple(rules)
        text = "; ".join(rule.message for rule in broken)
        return PydanticCustomError(cls.TYPE, "{text}", {"text": text, "rules": broken})


def matching(pattern: str, *, message: str, fix: str) -> Rule:
    """A rule that the whole text matches a pattern, with a message that a pattern in the schema cannot have."""
    compiled = re.compile(pattern)
    quoted = pattern.replace("'", "\\x27")
    return Rule(f"self.matches(r'^(?:{quoted})$')", lambda value: compiled.fullmatch(value) is not None, message, fix)


@dataclass(frozen=True, slots=True)
class UniqueBy:
    """A list whose items differ: by themselves (`set`), or by one field (`map`). The API server knows both kinds."""

    key: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        json_schema["x-kubernetes-list-type"] = "set" if self.key is None else "map"
        if self.key is not None:
            json_schema["x-kubernetes-list-map-keys"] = [self.key]
        return json_schema

    def check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the items, or raise an error that blames the second of two equal ones."""
        seen: set[Hashable] = set()
        for position, item in enumerate(items):
            identity = item if self.key is None else getattr(item, self.key)
            if identity in seen:
                field = f"[{position}]" if self.key is None else f"[{position}].{self.key}"
                raise RulesBroken.error([Rule("", bool, "Duplicate value", "remove or rename one of the two", field)])
            seen.add(identity)
        return items


class ContractModel(BaseModel):
    """Base of everything that users write and of the config document: closed, immutable, camelCase outside."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        defer_build=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> ContractModel:
        broken = [rule for rule in self.rules if not rule.holds(self)]
        if broken:
            raise RulesBroken.error(broken)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        if cls.rules:
            target = handler.resolve_ref_schema(json_schema)
            target[VALIDATIONS] = [rule.as_validation() for rule in cls.rules]
        return json_schema
