"""Marks for Anthropic's own cache: at most four, behind long prefixes only, and never beside the application's own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import MessageParam, TextBlockParam, ToolParam
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.optimization.prompt_caching import cache_marks, least_tokens, number_of_marks

LONG = "word " * 2000
MARK = {"type": "ephemeral"}
MODEL = "claude-sonnet-4-5"


def parsed(
    document: dict[str, Any], *, api: API = API.ANTHROPIC_MESSAGES, kind: RequestType = RequestType.GENERATION
) -> ParsedRequest:
    body = json.dumps({"model": MODEL, "max_tokens": 5, **document}).encode()
    return FORMATS[api].parse_request(Call(api=api, type=kind, path="/p"), body)


def marked(document: dict[str, Any], *, model: str = MODEL) -> dict[str, Any]:
    request = parsed(document)
    after: dict[str, Any] = json.loads(apply_splices(request.body, cache_marks(request, model=model)))
    return {name: value for name, value in after.items() if name in document}


def test_a_long_system_prompt_is_marked_at_its_end() -> None:
    question: list[MessageParam] = [{"role": "user", "content": "?"}]

    assert marked({"system": LONG, "messages": question}) == {
        "system": [{"type": "text", "text": LONG, "cache_control": MARK}],
        "messages": question,
    }


def test_the_last_block_of_a_system_prompt_in_blocks_is_marked() -> None:
    blocks: list[TextBlockParam] = [{"type": "text", "text": LONG}, {"type": "text", "text": "and this"}]

    assert marked({"system": blocks})["system"] == [blocks[0], {**blocks[1], "cache_control": MARK}]


def test_the_last_tool_that_is_loaded_at_once_is_marked() -> None:
    tools: list[ToolParam] = [
        {"name": "a", "description": LONG, "input_schema": {"type": "object"}},
        {"name": "b", "input_schema": {"type": "object"}},
        {"name": "c", "input_schema": {"type": "object"}, "defer_loading": True},
    ]

    assert marked({"tools": tools})["tools"] == [tools[0], {**tools[1], "cache_control": MARK}, tools[2]]


def test_a_conversation_that_goes_on_is_marked_at_the_users_last_two_turns() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": " "}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "r"}]},
    ]

    after = marked({"system": LONG, "messages": turns})["messages"]

    assert after[2]["content"] == [{"type": "text", "text": "second", "cache_control": MARK}, turns[2]["content"][1]]
    assert after[4]["content"] == [{**turns[4]["content"][0], "cache_control": MARK}]
    assert [after[position] for position in (0, 1, 3)] == [turns[position] for position in (0, 1, 3)]


def test_the_first_question_of_a_conversation_is_not_marked() -> None:
    """Nobody knows yet whether it goes on, and filling the provider's cache has a price."""
    turns = [{"role": "user", "content": LONG}]

    assert marked({"messages": turns}) == {"messages": turns}


@pytest.mark.parametrize(
    "document",
    [
        {"system": LONG, "cache_control": MARK},
        {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {
            "system": LONG,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}],
        },
        {"system": LONG, "tools": [{"name": "a", "input_schema": {}, "cache_control": None}]},
    ],
    ids=["automatic", "system", "messages", "tools"],
)
def test_an_application_that_marks_anything_itself_is_left_alone(document: dict[str, Any]) -> None:
    assert cache_marks(parsed(document), model=MODEL) == []


def test_a_prompt_that_only_speaks_of_marks_is_marked() -> None:
    assert number_of_marks(cache_marks(parsed({"system": LONG + '"cache_control"'}), model=MODEL)) == 1


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("claude-haiku-4-5-20251001", 4096),
        ("claude-opus-4-6", 4096),
        ("claude-3-5-haiku-latest", 2048),
        ("claude-sonnet-4-5", 1024),
        ("claude-opus-4-1", 1024),
        ("claude-opus-5", 512),
        ("something-new", 1024),
    ],
)
def test_a_prefix_that_this_models_provider_would_not_keep_is_not_marked(model: str, least: int) -> None:
    assert least_tokens(model) == least
    short, long = "x" * int(least * 3.5 - 10), "x" * int(least * 3.5 + 10)
    assert cache_marks(parsed({"system": short}), model=model) == []
    assert number_of_marks(cache_marks(parsed({"system": long}), model=model)) == 1


@pytest.mark.parametrize("document", [{"system": LONG * 2, "tools": 5, "messages": 7}, {"system": " " * 9000}])
def test_what_the_provider_will_refuse_is_left_to_it(document: dict[str, Any]) -> None:
    request = parsed(document)

    assert number_of_marks(cache_marks(request, model=MODEL)) <= 1


@pytest.mark.parametrize("api", [API.OPENAI_CHAT, API.OPENAI_RESPONSES])
def test_other_languages_are_not_touched(api: API) -> None:
    assert cache_marks(parsed({"system": LONG, "messages": []}, api=api), model=MODEL) == []


def test_a_count_of_tokens_is_not_touched() -> None:
    assert cache_marks(parsed({"system": LONG}, kind=RequestType.TOKEN_COUNT), model=MODEL) == []


_TEXTS = st.sampled_from(["", " ", "short", LONG])
_BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "tool_result", "unknown"]), "text": _TEXTS}
) | st.sampled_from([None, 5, "x"])
_CONTENTS = _TEXTS | st.lists(_BLOCKS, max_size=3)
_TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": _CONTENTS})
    | st.sampled_from([None, {}]),
    max_size=5,
)


@given(_CONTENTS, _TURNS, st.lists(st.sampled_from([None, {}, {"name": LONG}]), max_size=3), st.sampled_from([None, 1]))
def test_with_its_marks_taken_out_a_request_is_what_it_was(
    system: Any, turns: list[Any], tools: list[Any], indent: int | None
) -> None:
    """And there are never more marks than Anthropic takes."""
    document = {"model": MODEL, "tools": tools, "system": system, "messages": turns}
    call = Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/p")
    request = FORMATS[call.api].parse_request(call, json.dumps(document, indent=indent).encode())
    splices = cache_marks(request, model=MODEL)

    after = json.loads(apply_splices(request.body, splices))

    assert number_of_marks(splices) == _count_and_take_out(after) <= 4
    assert _in_blocks(after) == _in_blocks(document)


def _count_and_take_out(value: Any) -> int:
    if isinstance(value, dict):
        here = value.pop("cache_control", None) is not None
        return here + sum(_count_and_take_out(inner) for inner in value.values())
    return sum(_count_and_take_out(inner) for inner in value) if isinstance(value, list) else 0


def _in_blocks(document: dict[str, Any]) -> dict[str, Any]:
    """Plain texts written as the one block that they mean."""

    def blocks(content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    turns = [
        {**turn, "content": blocks(turn["content"])} if turn and "content" in turn else turn
        for turn in document["messages"]
    ]
    return {**document, "system": blocks(document["system"]), "messages": turns}
