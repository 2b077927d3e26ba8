"""OpenAI embeddings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import call_of, events, observer_of, play, request_of

PATH = "/v1/embeddings"
FORMAT = FORMATS[API.OPENAI_EMBEDDINGS]


@pytest.mark.parametrize(
    ("given", "tokens"), [([1, 2, 3], 3), ([[1, 2], [3]], 3), ("x" * 350, 110), (["x" * 350] * 2, 210), ([], 10)]
)
def test_token_ids_are_counted_and_text_is_estimated(given: Any, tokens: int) -> None:
    estimate = request_of(PATH, input=given).input_tokens_estimate

    assert (
        estimate == tokens
        if isinstance(given, list) and given and not isinstance(given[0], str)
        else (tokens <= estimate <= tokens + 25)
    )


def test_an_embedding_is_deterministic_and_generates_nothing() -> None:
    request = request_of(PATH, input="x", stream=True)

    assert (request.deterministic, request.stateful, request.stream, request.max_output_tokens) == (
        True,
        False,
        False,
        0,
    )


def test_the_model_is_replaced() -> None:
    request = request_of(PATH, input=["model"])

    body = apply_splices(request.body, FORMAT.splices(request, model="other", ask_for_usage=True))

    assert json.loads(body) == {**request.document, "model": "other"}


def test_usage_is_input_alone() -> None:
    answer = b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":4,"total_tokens":4}}'

    assert FORMAT.usage(call_of(PATH), answer) == Usage(4, None, None, 0, None)
    assert FORMAT.is_complete(call_of(PATH), answer)
    assert FORMAT.usage(call_of(PATH), b"{}") is None


@pytest.mark.parametrize(
    "answer",
    [
        b'{"data":[]}',
        b'{"data":[{"embedding":null}]}',
        b'{"data":[{"embedding":[1]},{"embedding":[]}]}',
        b'{"data":[{"embedding":[1]},null]}',
        b'{"data":{"embedding":[1]}}',
        b'{"data":[{"embedding":[1]}],"error":{}}',
        b"[]",
    ],
)
def test_an_answer_without_a_vector_in_each_place_is_not_complete(answer: bytes) -> None:
    assert not FORMAT.is_complete(call_of(PATH), answer)


def test_a_stream_that_should_not_exist_passes_but_counts_for_nothing() -> None:
    stream = events({"error": {"message": "m"}}, {"x": 1}, "[DONE]")
    observer = observer_of(PATH)

    assert play(observer, [stream]) == stream
    assert not observer.committed
    assert observer.error is not None
