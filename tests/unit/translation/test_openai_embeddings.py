"""OpenAI embeddings: what comes back, and what other languages' requests and answers become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.embedding_create_params import EmbeddingCreateParams
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, Usage
from llm_sidecar.formats.openai_embeddings import OpenAIEmbeddings
from llm_sidecar.translation.answer import ToldUsage
from llm_sidecar.translation.embeddings import EmbeddingAnswer, EmbeddingInput, EmbeddingRequest
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.openai_embeddings import OpenAIEmbeddingsTranslator
from tests.integration.recorded_exchanges import Exchange
from tests.unit.translation.recordings import each_recorded

CALL: Final = Call(api=API.OPENAI_EMBEDDINGS, type=RequestType.EMBEDDINGS, path="/embeddings")
TRANSLATOR: Final = OpenAIEmbeddingsTranslator()
PARAMETERS: Final = TypeAdapter[Any](EmbeddingCreateParams)
VECTOR: Final = (0.5, -0.25)
IN_BASE64: Final = "AAAAPwAAgL4="


def decoded(**fields: Any) -> EmbeddingRequest:
    return TRANSLATOR.decode_request(CALL, {"model": "m", "input": "hi", **fields})


def again(document: Mapping[str, Any]) -> Mapping[str, Any]:
    losses = Losses()
    request = TRANSLATOR.decode_request(CALL, document)
    encoded = TRANSLATOR.encode_request(request, model=str(document["model"]), losses=losses)
    assert (losses.names, encoded.path) == ([], "/embeddings")
    return encoded.document


def answered_again(request: EmbeddingRequest, document: Mapping[str, Any]) -> Mapping[str, Any]:
    losses = Losses()
    answer = TRANSLATOR.decode_answer(request, document)
    encoded = TRANSLATOR.encode_answer(request, answer, losses=losses)
    assert losses.names == []
    return encoded


def foreign(*inputs: EmbeddingInput, **fields: Any) -> EmbeddingRequest:
    inputs = inputs or (EmbeddingInput(text="hi"),)
    return EmbeddingRequest(**{"api": API.GEMINI, "model": "theirs", "inputs": inputs, "is_batch": False, **fields})


def answer_of(*vectors: tuple[float, ...], **fields: Any) -> EmbeddingAnswer:
    return EmbeddingAnswer(**{"api": API.GEMINI, "model": "theirs", "vectors": vectors, **fields})


@each_recorded(API.OPENAI_EMBEDDINGS)
def test_every_recorded_request_comes_back_as_it_was(exchange: Exchange) -> None:
    assert exchange.request == again(exchange.request)


@each_recorded(API.OPENAI_EMBEDDINGS, answered=True)
def test_every_recorded_answer_comes_back_as_it_was(exchange: Exchange) -> None:
    document = json.loads(exchange.response)
    request = TRANSLATOR.decode_request(CALL, exchange.request)
    assert document == answered_again(request, document)
    usage = TRANSLATOR.decode_answer(request, document).usage
    assert usage is not None
    assert OpenAIEmbeddings().usage(CALL, exchange.response) == usage.buckets


@pytest.mark.parametrize(
    "document",
    [
        {"input": "a"},
        {"input": ["a"]},
        {"input": ["a", "b"], "dimensions": 3, "user": "u", "encoding_format": "float"},
        {"input": [1, 2]},
        {"input": [[1, 2], [3]]},
        {"input": "a", "brand_new": 1, "user": None},
    ],
)
def test_a_request_comes_back_in_the_form_it_had(document: dict[str, Any]) -> None:
    assert {"model": "m", **document} == again({"model": "m", **document})


@pytest.mark.parametrize("given_input", [None, [], 5, [True], ["a", 5], [[1], ["a"]], {"text": "a"}])
def test_what_is_no_input_is_not_guessed_at(given_input: object) -> None:
    with pytest.raises(Undecodable):
        decoded(input=given_input)


@pytest.mark.parametrize(
    ("encoding", "spelled"), [("base64", IN_BASE64), ("float", list(VECTOR)), (None, list(VECTOR))]
)
def test_an_answer_is_spelled_as_the_request_asked(encoding: str | None, spelled: object) -> None:
    """Whatever way the provider spelled it."""
    request = decoded(**({} if encoding is None else {"encoding_format": encoding}))
    for told in (IN_BASE64, list(VECTOR)):
        item = {"object": "embedding", "index": 0, "embedding": told}
        document = {"object": "list", "model": "m", "data": [item], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        assert TRANSLATOR.decode_answer(request, document).vectors[0] == VECTOR
        assert spelled == answered_again(request, document)["data"][0]["embedding"]


def test_vectors_stand_in_the_order_of_their_inputs() -> None:
    document = {"model": "m", "data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0], "more": 1}]}
    request = decoded(input=["a", "b"])
    assert TRANSLATOR.decode_answer(request, document).vectors == ((1.0,), (2.0,))
    encoded = answered_again(request, document)
    assert "object" not in encoded
    assert [item.get("more") for item in encoded["data"]] == [1, None]


@pytest.mark.parametrize("told", [None, "?", "AAAA", [1, "2"], [[1.0]], [True]])
def test_what_is_no_vector_is_not_guessed_at(told: object) -> None:
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(decoded(), {"model": "m", "data": [{"index": 0, "embedding": told}]})
    with pytest.raises(Undecodable):
        TRANSLATOR.decode_answer(decoded(), {"model": "m"})


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_base64_loses_nothing_of_a_float(vector: list[float]) -> None:
    request = decoded(encoding_format="base64")
    encoded = TRANSLATOR.encode_answer(request, answer_of(tuple(vector)), losses=Losses())
    assert (tuple(vector),) == TRANSLATOR.decode_answer(request, encoded).vectors


# From other languages.


def test_a_foreign_request_becomes_one_that_the_sdk_could_send() -> None:
    losses = Losses()
    request = foreign(
        EmbeddingInput(text="a"), EmbeddingInput(text="b"), is_batch=True, dimensions=3, task_type="X", title="t"
    )
    document = TRANSLATOR.encode_request(request, model="m", losses=losses).document
    PARAMETERS.validate_python(document)
    assert document == {"model": "m", "input": ["a", "b"], "dimensions": 3}
    assert losses.names == ["taskType", "title"]


@pytest.mark.parametrize(
    "request_",
    [
        foreign(extra={"autoTruncate": True}),
        foreign(EmbeddingInput(text="a", extra={"role": "user"})),
        foreign(EmbeddingInput(extra={})),
    ],
)
def test_what_would_change_the_vectors_is_refused(request_: EmbeddingRequest) -> None:
    with pytest.raises(Untranslatable):
        TRANSLATOR.encode_request(request_, model="m", losses=Losses())


@pytest.mark.parametrize(("told", "counted"), [(ToldUsage(buckets=Usage(input_tokens=7)), 7), (None, 0)])
@pytest.mark.parametrize("encoding", ["float", None])
def test_the_sdk_takes_a_foreign_answer(told: ToldUsage | None, counted: int, encoding: str | None) -> None:
    losses = Losses()
    answer = answer_of(VECTOR, (1.0, 2.0), usage=told, extra={"metadata": {}, "$form": 1})
    document = TRANSLATOR.encode_answer(replace(decoded(), encoding=encoding), answer, losses=losses)
    checked = CreateEmbeddingResponse.model_validate_json(json.dumps(document), strict=True)
    assert [list(VECTOR), [1.0, 2.0]] == [item.embedding for item in checked.data]
    assert [item.index for item in checked.data] == [0, 1]
    assert (counted, counted) == (checked.usage.prompt_tokens, checked.usage.total_tokens)
    assert losses.names == ["metadata"]


def test_a_number_beyond_floats_is_refused_in_base64() -> None:
    with pytest.raises(Untranslatable):
        TRANSLATOR.encode_answer(decoded(encoding_format="base64"), answer_of((1e300,)), losses=Losses())
