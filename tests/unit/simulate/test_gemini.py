from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from google import genai
from google.genai import types
from pydantic import BaseModel

from tests.unit.simulate.shapes import assert_known_shape, events_of

# google-genai subclasses aiohttp's session, which aiohttp discourages at import of that class.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "gemini-3-flash-preview"
GENERATE = f"/v1beta/models/{MODEL}:generateContent"
STREAM = f"/v1beta/models/{MODEL}:streamGenerateContent"
DECLARATIONS: list[Any] = [
    {
        "name": name,
        "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
    }
    for name in ("get_weather", "get_forecast")
]
TOOLS: list[Any] = [types.Tool(function_declarations=[types.FunctionDeclaration(**each) for each in DECLARATIONS])]


class City(BaseModel):
    name: str
    population: int


def user(text: str) -> list[Any]:
    return [{"role": "user", "parts": [{"text": text}]}]


REQUESTS: dict[str, dict[str, Any]] = {
    "echo": {"contents": user("Hello!")},
    "two-answers": {"contents": user("Hello!"), "generationConfig": {"candidateCount": 2}},
    "thoughts": {"contents": user("Hello!"), "generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
    "parallel-tools": {
        "contents": user("In parallel, please"),
        "tools": [{"functionDeclarations": DECLARATIONS}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    },
    "schema": {"contents": user("A city"), "generationConfig": {"responseMimeType": "application/json"}},
    "cut-short": {"contents": user("Hello!"), "generationConfig": {"maxOutputTokens": 3}},
    "snake-case": {"contents": user("Hello!"), "generation_config": {"max_output_tokens": 3}},
}


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS.keys())
async def test_an_answer_has_the_shape_that_the_sdk_knows(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    async with http.post(GENERATE, json=request_body) as answer:
        told = await answer.json()

    assert_known_shape(types.GenerateContentResponse, told, api="google")
    usage = told["usageMetadata"]
    parts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    assert usage["totalTokenCount"] == sum(usage.get(part, 0) for part in parts)


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS.keys())
async def test_both_streams_tell_the_same_chunks_of_a_known_shape(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    async with http.post(f"{STREAM}?alt=sse", json=request_body) as answer:
        text = await answer.text()
        events = events_of(text)
    async with http.post(STREAM, json=request_body) as answer:
        elements = json.loads(await answer.text())

    assert {line.partition(" ")[0] for line in text.splitlines() if line} == {"data:"}
    assert [_without_ids(each) for each in elements] == [_without_ids(data) for _, data in events]
    for _, data in events:
        assert_known_shape(types.GenerateContentResponse, data, api="google")


def _without_ids(chunk: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in chunk.items() if name != "responseId"}
    for candidate in kept["candidates"]:
        for part in candidate["content"]["parts"]:
            part.pop("thoughtSignature", None)
            part.get("functionCall", {}).pop("id", None)
    return kept


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_other_endpoints_have_shapes_that_the_sdk_knows(http: aiohttp.ClientSession, version: str) -> None:
    content = {"parts": [{"text": "Hello!"}]}
    for path, body, kind in (
        (f"models/{MODEL}:countTokens", {"contents": [content]}, types.CountTokensResponse),
        (
            "models/gemini-embedding-2:batchEmbedContents",
            {"requests": [{"content": content}]},
            types.EmbedContentResponse,
        ),
    ):
        async with http.post(f"/{version}/{path}", json=body) as answer:
            assert_known_shape(kind, await answer.json(), api="google")
    async with http.post(f"/{version}/models/gemini-embedding-2:embedContent", json={"content": content}) as answer:
        told = await answer.json()
        assert_known_shape(types.ContentEmbedding, told["embedding"], api="google")


async def test_a_stream_says_what_the_plain_answer_says(gemini_client: genai.Client) -> None:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    models = gemini_client.aio.models
    plain = await models.generate_content(model=MODEL, contents="Tell me more", config=config)
    stream = await models.generate_content_stream(model=MODEL, contents="Tell me more", config=config)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.text or "" for chunk in chunks) == plain.text
    assert chunks[-1].usage_metadata == plain.usage_metadata
    assert plain.usage_metadata is not None
    assert plain.usage_metadata.thoughts_token_count


async def test_functions_are_called_in_parallel_and_their_results_read(gemini_client: genai.Client) -> None:
    config = types.GenerateContentConfig(
        tools=TOOLS,
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
        ),
    )
    models = gemini_client.aio.models
    first = await models.generate_content(model=MODEL, contents="all in parallel", config=config)
    calls = first.function_calls or []
    assert [(call.name, call.args) for call in calls] == [
        ("get_weather", {"city": "example"}),
        ("get_forecast", {"city": "example"}),
    ]

    assert first.candidates is not None
    turn: Any = first.candidates[0].content
    results = [types.Part.from_function_response(name=str(call.name), response={"sky": "sunny"}) for call in calls]
    contents: Any = [types.Content(role="user", parts=[types.Part(text="all in parallel")]), turn]
    second = await models.generate_content(model=MODEL, contents=[*contents, types.Content(role="user", parts=results)])
    assert "sunny" in (second.text or "")


async def test_structured_output_parses(gemini_client: genai.Client) -> None:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = await gemini_client.aio.models.generate_content(model=MODEL, contents="A city", config=config)

    assert isinstance(answer.parsed, City)


async def test_an_image_costs_tokens_of_its_own_modality(gemini_client: genai.Client) -> None:
    image = types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png")
    answer = await gemini_client.aio.models.generate_content(model=MODEL, contents=["Look", image])

    assert "1 image" in (answer.text or "")
    assert answer.usage_metadata is not None
    details = answer.usage_metadata.prompt_tokens_details or []
    assert [(str(each.modality and each.modality.value), each.token_count) for each in details] == [
        ("TEXT", 4),
        ("IMAGE", 85),
    ]


async def test_counts_embeddings_and_models_answer_the_sdk(gemini_client: genai.Client) -> None:
    models = gemini_client.aio.models
    counted = await models.count_tokens(model=MODEL, contents="Hello!")
    embedded = await models.embed_content(
        model="gemini-embedding-2",
        contents=["a", "b"],  # one content of two parts, or two contents: the SDK decides
        config=types.EmbedContentConfig(output_dimensionality=8),
    )

    assert counted.total_tokens == 5
    assert {len(each.values or []) for each in embedded.embeddings or []} == {8}
    assert f"models/{MODEL}" in [model.name async for model in await models.list()]
    assert (await models.get(model=MODEL)).name == f"models/{MODEL}"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (GENERATE, b"{", 400),
        (GENERATE, b"{}", 400),
        (GENERATE, b'{"contents":[7]}', 400),
        ("/v1beta/models/missing-1:generateContent", b'{"contents":[{}]}', 404),
        ("/v1beta/models/gemini-embedding-2:embedContent", b"{}", 400),
        ("/v1beta/nothing", b"{}", 404),
    ],
    ids=["no-json", "no-contents", "wrong-type", "unknown-model", "no-content", "unknown-path"],
)
async def test_what_google_would_refuse_is_refused_in_its_words(
    http: aiohttp.ClientSession, path: str, body: bytes, status: int
) -> None:
    async with http.post(path, data=body) as answer:
        told = await answer.json()

    assert answer.status == told["error"]["code"] == status
    assert {"code", "message", "status"} <= set(told["error"])


async def test_an_error_of_the_array_stream_is_an_array_of_one(http: aiohttp.ClientSession) -> None:
    async with http.post(STREAM, json={}) as answer:
        [element] = await answer.json()

    assert element["error"]["status"] == "INVALID_ARGUMENT"
