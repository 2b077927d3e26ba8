"""Any change of what a request means changes its key; how it is written or delivered does not.

The requests are drawn from the SDKs' own types, so that a field which an SDK gets tomorrow is tested tomorrow, and
taken from the recorded traffic.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParams
from google.genai import types as google_types
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import TypeAdapter

from llm_sidecar.cache.key import DELIVERY_MEMBERS, IGNORED_MEMBERS, request_digest
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, MalformedRequest
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.formats.registry import FORMATS
from tests.conftest import _recordings_directory
from tests.integration.recorded_exchanges import Exchange, load

Document = dict[str, Any]
Path = tuple[str | int, ...]
TYPES: Final[Mapping[API, Any]] = {
    API.OPENAI_CHAT: CompletionCreateParams,
    API.OPENAI_RESPONSES: ResponseCreateParams,
    API.OPENAI_EMBEDDINGS: EmbeddingCreateParams,
    API.ANTHROPIC_MESSAGES: MessageCreateParams,
}
GEMINI_TYPES: Final[Mapping[str, Any]] = {
    "contents": list[google_types.Content],
    "systemInstruction": google_types.Content,
    "generationConfig": google_types.GenerationConfig,
    "tools": list[google_types.Tool],
    "toolConfig": google_types.ToolConfig,
    "safetySettings": list[google_types.SafetySetting],
}
DEPTH: Final = 5
"""Deeper schemas are cut off: a function's parameters may hold themselves."""


def ignored(api: API) -> frozenset[str]:
    return DELIVERY_MEMBERS if api is API.OPENAI_RESPONSES else IGNORED_MEMBERS


# --- requests by the SDKs' types


@cache
def _schema(kind: Any) -> Document:
    return TypeAdapter(kind).json_schema(by_alias=True)


def values(schema: Document, defs: Document, depth: int = DEPTH) -> st.SearchStrategy[Any]:
    """Values of a JSON schema, as far as pydantic writes them."""
    if "$ref" in schema:
        return st.deferred(lambda: values(defs[schema["$ref"].rpartition("/")[2]], defs, depth))
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return st.sampled_from(schema[word]).flatmap(lambda one: values(one, defs, depth))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    make = _OF_TYPE.get(schema.get("type", ""))
    return st.none() if make is None else make(schema, defs, depth)


def _objects(schema: Document, defs: Document, depth: int) -> st.SearchStrategy[Any]:
    fields = schema.get("properties", {})
    needed = set(schema.get("required", ()))
    if depth == 0 or not fields:
        return st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2)
    optional = sorted(set(fields) - needed)
    chosen = st.sets(st.sampled_from(optional), max_size=2) if optional else st.just(set[str]())
    return chosen.flatmap(
        lambda more: st.fixed_dictionaries(
            {name: values(fields[name], defs, depth - 1) for name in sorted(needed | more)}
        )
    )


def _arrays(schema: Document, defs: Document, depth: int) -> st.SearchStrategy[Any]:
    return st.lists(values(schema.get("items", {}), defs, depth - 1), max_size=2 if depth > 0 else 0)


_OF_TYPE: Final[Mapping[str, Callable[[Document, Document, int], st.SearchStrategy[Any]]]] = {
    "object": _objects,
    "array": _arrays,
    "string": lambda *_: st.text("ab é\u2028", max_size=4),
    "integer": lambda *_: st.integers(-5, 2**40),
    "number": lambda *_: st.sampled_from([0, 0.0, 0.5, 1, 1e-9]),
    "boolean": lambda *_: st.booleans(),
}


def requests(api: API) -> st.SearchStrategy[Document]:
    """Requests of one API, as its SDK may send them."""
    if api is API.GEMINI:
        parts = {name: values(_schema(kind), _schema(kind).get("$defs", {})) for name, kind in GEMINI_TYPES.items()}
        return st.fixed_dictionaries({"contents": parts.pop("contents")}, optional=parts)
    schema = _schema(TYPES[api])
    return values(schema, schema.get("$defs", {})).map(lambda document: {**document, "model": "m"})


# --- keys


def call_of(api: API) -> Call:
    kind = RequestType.EMBEDDINGS if api is API.OPENAI_EMBEDDINGS else RequestType.GENERATION
    path = "/v1beta/models/m:generateContent" if api is API.GEMINI else "/p"
    return Call(api=api, type=kind, path=path, model="m" if api is API.GEMINI else None)


def key_of(call: Call, document: Document, *, spaced: bool = False) -> bytes | None:
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 if spaced else 0)
    return request_digest(FORMATS[call.api].parse_request(call, body), [], "")


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where there is something that can be changed, and every place that can be left out."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*path, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from leaves(each, (*path, number))


def changed(document: Document, path: Path, new: Any) -> Document:
    copy: Any = json.loads(json.dumps(document))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    if new is _GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    made: Document = copy
    return made


_GONE: Final = object()
_NEW: Final[tuple[Any, ...]] = (_GONE, None, True, False, 0, 1, 1.5, "", "other", [], {}, [1], {"a": 1})


def shuffled(value: Any, dice: random.Random, *, is_ordered: bool = False) -> Any:
    """In another order, but for the order of `properties`, in which models write their answers."""
    if isinstance(value, dict):
        items = list(value.items())
        if not is_ordered:
            dice.shuffle(items)
        return {name: shuffled(each, dice, is_ordered=name == "properties") for name, each in items}
    return [shuffled(each, dice) for each in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is not 1.0, and not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("api", [*TYPES, API.GEMINI])
@settings(max_examples=150)
@given(data=st.data())
def test_any_change_of_a_request_changes_its_key(api: API, data: st.DataObject) -> None:
    call, document = call_of(api), data.draw(requests(api))
    places = [path for path in leaves(document) if path[0] not in {*ignored(api), "model"}]
    assume(places)
    path = data.draw(st.sampled_from(places))
    other = changed(document, path, data.draw(st.sampled_from(_NEW)))
    assume(not same(document, other))
    try:
        keys = key_of(call, document), key_of(call, other)
    except MalformedRequest:
        return  # refused before it has a key
    assert keys[0] is not None
    assert keys[0] != keys[1], (path, document, other)


@pytest.mark.parametrize("api", [*TYPES, API.GEMINI])
@settings(max_examples=60)
@given(data=st.data())
def test_order_space_and_delivery_do_not_change_it(api: API, data: st.DataObject) -> None:
    call, document = call_of(api), data.draw(requests(api))
    other = shuffled(document, random.Random(data.draw(st.integers(0, 99))))
    if api is API.GEMINI:
        streamed = replace(call, path=call.path.replace(":gen", ":streamGen"), stream=True)
    else:
        streamed = call
        other = {**other, "stream": not document.get("stream"), "stream_options": {"include_usage": True}}
    try:
        keys = key_of(call, document), key_of(streamed, other, spaced=True)
    except MalformedRequest:
        return
    assert keys[0] is not None
    assert keys[0] == keys[1]


@pytest.mark.parametrize("api", TYPES)
def test_every_field_that_the_sdk_knows_counts_but_the_listed_ones(api: API) -> None:
    call, schema = call_of(api), _schema(TYPES[api])
    known = {name for each in (schema, *schema.get("$defs", {}).values()) for name in _top_level(api, each)}
    base = {"model": "m", "messages": [], "input": "x"}
    assert len(known) > 4
    for name in sorted(known - {"model"}):
        counts = key_of(call, {**base, name: "some"}) != key_of(call, {**base, name: "thing"})
        assert counts == (name not in ignored(api)), name


def _top_level(api: API, schema: Document) -> set[str]:
    whole = api is API.OPENAI_EMBEDDINGS or str(schema.get("title", "")).endswith("Streaming")
    return set(schema.get("properties", {})) if whole else set()


# --- recorded requests


def test_any_change_of_a_recorded_request_changes_its_key(recorded_calls: list[tuple[Call, Exchange]]) -> None:
    dice = random.Random(20261123)
    for call, exchange in recorded_calls:
        document = exchange.request
        key = key_of(call, document)
        assert key == key_of(call, shuffled(document, dice), spaced=True), exchange.id
        places = [path for path in leaves(document) if path[0] not in {*ignored(call.api), "model"}]
        for path in dice.sample(places, min(20, len(places))):
            other = changed(document, path, dice.choice(_NEW))
            if key is not None and not same(document, other) and (made := _key_or_none(call, other)) is not None:
                assert made != key, (exchange.id, path)


def test_another_order_of_a_recorded_schema_changes_the_key(recorded_calls: list[tuple[Call, Exchange]]) -> None:
    """A model writes structured answers, and the arguments of tools, in the order of the schema's properties."""
    compared = set()
    for call, exchange in recorded_calls:
        for path in leaves(exchange.request):
            found = _at(exchange.request, path)
            if path[-1] == "properties" and path[0] not in ignored(call.api) and isinstance(found, dict) and found:
                other = changed(exchange.request, path, dict(reversed(found.items())))
                if len(found) > 1:
                    assert key_of(call, other) != key_of(call, exchange.request), (exchange.id, path)
                    compared.add(call.api)
                else:
                    assert key_of(call, other) == key_of(call, exchange.request), (exchange.id, path)
    assert {API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI} <= compared


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def test_different_recorded_requests_have_different_keys(recorded_calls: list[tuple[Call, Exchange]]) -> None:
    by_key: dict[bytes, tuple[Call, Document]] = {}
    for call, exchange in recorded_calls:
        meaning = {name: value for name, value in exchange.request.items() if name not in ignored(call.api)}
        key = key_of(call, exchange.request)
        if key is not None:
            first_call, first = by_key.setdefault(key, (call, meaning))
            assert same(first, meaning), exchange.id
            assert first_call.path.partition(":")[0] == call.path.partition(":")[0]
    assert len(by_key) > 250


@pytest.fixture(scope="module")
def recorded_calls() -> list[tuple[Call, Exchange]]:
    directory = _recordings_directory()
    if not directory.is_dir():
        pytest.skip(f"no recordings in {directory}")
    found = []
    for exchange in load(directory):
        if isinstance(exchange.request, dict):
            path, _, query = exchange.path.partition("?")
            call = recognise(exchange.method, path, query, exchange.request_headers)
            if isinstance(call, Call) and _key_or_none(call, exchange.request) is not None:
                found.append((call, exchange))
    assert len(found) > 400
    return found


def _key_or_none(call: Call, document: Document) -> bytes | None:
    try:
        return key_of(call, document)
    except MalformedRequest:
        return None
