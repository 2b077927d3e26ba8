"""Gemini's embeddings: what comes back, what OpenAI's become, what is refused."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx2
import pytest
from google import genai
from google.genai import types

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translation.answer import ToldUsage
from llm_sidecar.translation.embeddings import EmbeddingAnswer, EmbeddingInput, EmbeddingRequest
from llm_sidecar.translation.gemini_embeddings import GeminiEmbeddingsTranslator
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from tests.integration.recorded_exchanges import Exchange
from tests.unit.formats.streams import call_of
from tests.unit.translation.recordings import each_recorded, recorded_gemini_embeddings

TRANSLATOR: Final = GeminiEmbeddingsTranslator()
SINGLE: Final = "/v1beta/models/m:embedContent"
BATCH: Final = "/v1beta/models/m:batchEmbedContents"


def decoded(target: str, document: dict[str, Any]) -> EmbeddingRequest:
    return TRANSLATOR.decode_request(call_of(target), document)


def openai(*texts: str, **fields: Any) -> EmbeddingRequest:
    inputs = tuple(EmbeddingInput(text=text) for text in texts)
    return EmbeddingRequest(
        **{"api": API.OPENAI_EMBEDDINGS, "model": "e", "inputs": inputs, "is_batch": len(texts) != 1, **fields}
    )


def encoded(request: EmbeddingRequest, *dropped: str) -> tuple[str, Any]:
    losses = Losses()
    sent = TRANSLATOR.encode_request(request, model="gemini-embedding-2", losses=losses)
    assert losses.names == list(dropped)
    return sent.path, sent.document


@each_recorded(API.GEMINI, found=recorded_gemini_embeddings)
def test_a_recorded_exchange_comes_back_as_it_was(exchange: Exchange) -> None:
    call = call_of(exchange.path)
    losses = Losses()
    request = TRANSLATOR.decode_request(call, exchange.request)
    document = json.loads(exchange.response)

    sent = TRANSLATOR.encode_request(request, model=call.model or "", losses=losses)
    answer = TRANSLATOR.decode_answer(request, document)

    assert (sent.path, sent.document) == (call.path, exchange.request)
    assert TRANSLATOR.encode_answer(request, answer, losses=losses) == document
    assert losses.names == []
    assert answer.usage is not None
    assert answer.usage.buckets == FORMATS[API.GEMINI].usage(call, exchange.response)


TEXT: Final = {"parts": [{"text": "a"}]}


@pytest.mark.parametrize(
    ("target", "document"),
    [
        (SINGLE, {}),
        (SINGLE, {"content": TEXT}),
        (SINGLE, {"model": "models/m", "content": {"role": "user", "parts": {"text": "a"}}, "title": "t"}),
        (SINGLE, {"content": TEXT, "task_type": "RETRIEVAL_QUERY", "outputDimensionality": 8, "new": 1}),
        (SINGLE, {"content": {"parts": [{"text": "a"}, {"text": "b"}]}}),
        (SINGLE, {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}),
        (BATCH, {}),
        (BATCH, {"requests": []}),
        (BATCH, {"requests": [{"model": "m", "content": TEXT}, {"model": "models/m", "content": TEXT}]}),
        (BATCH, {"requests": [{"content": TEXT, "taskType": "A"}, {"content": TEXT, "taskType": "B"}]}),
        (BATCH, {"requests": [{"content": TEXT, "outputDimensionality": 8}] * 2}),
    ],
)
def test_a_request_of_any_form_comes_back_as_it_was(target: str, document: dict[str, Any]) -> None:
    sent = TRANSLATOR.encode_request(decoded(target, document), model="m", losses=Losses())

    assert (sent.path, sent.document) == (target, document)


@pytest.mark.parametrize(
    ("target", "document"),
    [
        (SINGLE, {"embedding": {"values": [1, 0.5]}}),
        (SINGLE, {"embedding": {"values": [1.5], "statistics": {"tokenCount": 1}}, "usageMetadata": {}}),
        (BATCH, {"embeddings": [{"values": [1.5]}, {"values": [2.5], "shape": [1]}], "new": True}),
    ],
)
def test_an_answer_of_any_form_comes_back_as_it_was(target: str, document: dict[str, Any]) -> None:
    request = decoded(target, {})

    answer = TRANSLATOR.decode_answer(request, document)

    assert TRANSLATOR.encode_answer(request, answer, losses=Losses()) == document


def test_settings_that_all_inputs_share_are_the_requests() -> None:
    shared = {"taskType": "CLUSTERING", "title": "t", "output_dimensionality": 8}
    request = decoded(BATCH, {"requests": [{"content": TEXT, **shared}, {"content": TEXT, **shared}]})

    assert [given.text for given in request.inputs] == ["a", "a"]
    assert (request.task_type, request.title, request.dimensions) == ("CLUSTERING", "t", 8)


def test_a_text_becomes_one_request_and_a_list_a_batch() -> None:
    single = encoded(openai("a", dimensions=8, user="u", encoding="base64"), "user")
    batch = encoded(openai("a", "b"))

    assert single == (
        "/v1beta/models/gemini-embedding-2:embedContent",
        {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8},
    )
    assert batch == (
        "/v1beta/models/gemini-embedding-2:batchEmbedContents",
        {
            "requests": [
                {"model": "models/gemini-embedding-2", "content": {"parts": [{"text": text}]}} for text in ("a", "b")
            ]
        },
    )


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (openai(inputs=(EmbeddingInput(tokens=(1, 2)),)), "token numbers"),
        (openai(*["a"] * 101), "more than 100 inputs"),
        (openai("a", extra={"new": 1}), "`new`"),
    ],
)
def test_what_google_cannot_embed_is_refused(request_: EmbeddingRequest, what: str) -> None:
    with pytest.raises(Untranslatable, match=what):
        TRANSLATOR.encode_request(request_, model="m", losses=Losses())


@pytest.mark.parametrize(
    "document", [{"embeddings": [{"values": ["a"]}]}, {"embeddings": [{}]}, {"embedding": [1]}, {"embeddings": 1}]
)
def test_what_is_no_answer_is_undecodable(document: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(decoded(BATCH, {}), document)


def test_the_sdk_reads_vectors_of_another_api() -> None:
    answer = EmbeddingAnswer(
        api=API.OPENAI_EMBEDDINGS,
        model="e",
        vectors=((0.5, 1.0), (1.5, 2.0)),
        usage=ToldUsage(buckets=Usage(input_tokens=3, output_tokens=0)),
        extra={"object": "list"},
    )

    def respond(request: httpx2.Request) -> httpx2.Response:
        losses = Losses()
        call = call_of(request.url.path)
        asked = TRANSLATOR.decode_request(call, json.loads(request.content))
        document = TRANSLATOR.encode_answer(asked, answer, losses=losses)
        assert losses.names == ["object"]
        return httpx2.Response(200, json=document)

    options = types.HttpOptions(
        base_url="http://127.0.0.1:1", httpx_client=httpx2.Client(transport=httpx2.MockTransport(respond))
    )
    with genai.Client(api_key="k", http_options=options) as client:
        read = client.models.embed_content(model="text-embedding-004", contents=["a", "b"])

    assert [one.values for one in read.embeddings or []] == [[0.5, 1.0], [1.5, 2.0]]
