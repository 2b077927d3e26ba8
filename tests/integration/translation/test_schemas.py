"""An answer by a JSON schema that uses most of what schemas can say, from each provider, behind the same SDK."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import openai
import pytest

from llm_sidecar.contract.names import API
from tests.integration.translation.world import MODELS, World, running_world

ADDRESS: Final = {
    "type": "object",
    "properties": {"street": {"type": "string", "minLength": 12}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
    "required": ["street", "zip"],
    "additionalProperties": False,
}
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "$defs": {"address": ADDRESS, "tree": {"anyOf": [{"$ref": "#/$defs/branch"}, {"type": "null"}]}}
    | {
        "branch": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}},
            "required": ["left", "right"],
            "additionalProperties": False,
        }
    },
    "properties": {
        "kind": {"const": "customer"},
        "colour": {"enum": ["red", "green"]},
        "address": {"$ref": "#/$defs/address"},
        "nickname": {"type": ["string", "null"]},
        "born": {"type": "string", "format": "date"},
        "mail": {"type": "string", "format": "email"},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "steps": {"type": "integer", "multipleOf": 7, "minimum": 8},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 2},
        "either": {"oneOf": [{"type": "integer", "minimum": 5}, {"type": "boolean"}]},
        "merged": {"allOf": [{"$ref": "#/$defs/address"}]},
        "tree": {"$ref": "#/$defs/tree"},
        "flag": {"type": "boolean", "default": True},
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


@pytest.mark.parametrize("provider", [API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.GEMINI])
def test_what_comes_holds_to_the_schema(world: World, provider: API) -> None:
    with openai.OpenAI(base_url=f"{world.base_url}/v1", api_key=world.token, max_retries=0) as client:
        answer = client.chat.completions.create(
            model=MODELS[provider],
            messages=[{"role": "user", "content": "Make up a customer."}],
            response_format={"type": "json_schema", "json_schema": {"name": "customer", "schema": SCHEMA}},
        )

    made = json.loads(answer.choices[0].message.content or "")
    assert made.keys() == SCHEMA["properties"].keys()
    assert (made["kind"], made["colour"]) == ("customer", "red")
    for address in (made["address"], made["merged"]):
        assert re.fullmatch("[0-9]{5}", address["zip"])
        assert len(address["street"]) >= 12
    assert dt.date.fromisoformat(made["born"]).year > 0
    assert "@" in made["mail"]
    assert 18 <= made["age"] <= 99
    assert 0 < made["share"] < 1
    assert made["steps"] >= 8
    assert made["steps"] % 7 == 0
    assert len(made["tags"]) >= 2
    assert all(len(tag) <= 4 for tag in made["tags"])
    assert isinstance(made["either"], bool) or made["either"] >= 5
    assert made["tree"] is None or made["tree"].keys() == {"left", "right"}
    assert made["flag"] in {True, False}
