from __future__ import annotations

import datetime as dt
import enum
import uuid
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from llm_sidecar.simulate.schema import example


class Colour(enum.Enum):
    RED = "red"


class Node(BaseModel):
    label: str
    children: list[Node]
    parent: Optional[Node]  # noqa: UP045 - as applications write it


class Everything(BaseModel):
    colour: Colour
    kind: Literal["a", "b"]
    count: Annotated[int, Field(ge=3, le=9, multiple_of=4)]
    share: Annotated[float, Field(gt=0, lt=0.25)]
    name: Annotated[str, Field(min_length=12, max_length=14)]
    code: Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{3}$")]
    day: dt.date
    moment: dt.datetime
    key: uuid.UUID
    pair: tuple[int, str]
    several: Annotated[list[bool], Field(min_length=3)]
    either: int | str | None
    mapping: dict[str, int]
    node: Node


@pytest.mark.parametrize("kind", [Everything, Node])
def test_an_example_satisfies_the_schema_of_a_pydantic_model(kind: type[BaseModel]) -> None:
    kind.model_validate(example(kind.model_json_schema()))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}, {"a": "example"}),
        ({"type": "ARRAY", "minItems": "2", "items": {"type": "INTEGER"}}, [1, 1]),
        ({"type": ["null", "integer"], "exclusiveMinimum": 4}, 5),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"enum": ["y"]}}}, "y"),
        ({"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]}, {}),
        ({"type": "object"}, {}),
        (True, "example"),
        ({"type": "string", "pattern": "("}, "example"),
    ],
    ids=["gemini", "told-as-text", "nullable", "all-of", "reference", "endless", "anything", "true", "bad-pattern"],
)
def test_dialects_and_corners(schema: Any, expected: Any) -> None:
    assert example(schema) == expected
