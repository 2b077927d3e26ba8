"""A batch is taken apart into what each vector depends on, and put together again in the application's order."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.cache.embedding_batch import (
    MAX_ITEMS,
    Batch,
    read_batch,
    read_vectors,
    rest_of_hits,
    write_answer,
)
from llm_sidecar.cache.vectors import pack, unpack
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS

OPENAI, GEMINI = API.OPENAI_EMBEDDINGS, API.GEMINI


def batch(document: dict[str, Any], *, api: API = OPENAI, path: str = "/embeddings") -> Batch | None:
    if api is GEMINI:
        call = Call(api=api, type=RequestType.EMBEDDINGS, path="/v1beta/models/m:batchEmbedContents", model="m")
    else:
        call = Call(api=api, type=RequestType.EMBEDDINGS, path=path)
        document = {"model": "m", **document}
    return read_batch(FORMATS[api].parse_request(call, json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("text", ["text"]),
        (["text"], ["text"]),
        (["a", "b", "a"], ["a", "b", "a"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2, 3]], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_texts_and_lists_of_tokens_are_items(given: Any, items: list[Any]) -> None:
    found = batch({"input": given})

    assert found is not None
    assert list(found.items) == items
    assert found.document(range(len(items))) == {"model": "m", "input": given}


@pytest.mark.parametrize(
    "given",
    [None, [], {}, 5, [1, "a"], [[1], "a"], [[]], [[1, "a"]], [True], [1.5], [[1.5]], ["a"] * (MAX_ITEMS + 1)],
    ids=lambda given: str(given)[:20],
)
def test_what_is_not_understood_entirely_is_no_batch(given: Any) -> None:
    found = batch({"input": given})

    assert found is None


def test_geminis_batches_are_taken_apart_too() -> None:
    requests = [{"model": "models/m", "content": {"parts": [{"text": text}]}, "taskType": "QUERY"} for text in "ab"]
    found = batch({"requests": requests}, api=GEMINI)

    assert found is not None
    assert list(found.items) == requests
    assert found.document([1]) == {"requests": [requests[1]]}
    assert batch({"requests": [{"content": None}]}, api=GEMINI) is None


def digests(document: dict[str, Any], **where: Any) -> list[bytes]:
    found = batch(document, **where)
    assert found is not None
    return found.digests(b"common")


def test_an_item_means_the_same_wherever_it_stands() -> None:
    assert digests({"input": "a"}) == digests({"input": ["a"]}) == digests({"input": ["b", "a"]})[1:]
    assert digests({"input": [1, 2]}) == digests({"input": [[1, 2]]}) == digests({"input": [[3], [1, 2]]})[1:]


def test_what_could_change_a_vector_makes_another_item() -> None:
    content = {"parts": [{"text": "a"}]}
    variants: list[dict[str, Any]] = [
        {"content": content},
        {"content": content, "taskType": "RETRIEVAL_QUERY"},
        {"content": content, "taskType": "RETRIEVAL_DOCUMENT", "title": "t"},
        {"content": content, "outputDimensionality": 256},
        {"content": {"parts": [{"text": "b"}]}},
    ]
    found = [digests({"requests": [one]}, api=GEMINI)[0] for one in variants]
    found += digests({"input": ["a", "1", [1]][:2]}) + digests({"input": [1]})

    assert len(set(found)) == len(found)


def test_the_order_of_members_does_not_count() -> None:
    item = {"content": {"parts": [{"text": "a"}], "role": "user"}, "taskType": "T"}
    turned = {"taskType": "T", "content": {"role": "user", "parts": [{"text": "a"}]}}

    assert digests({"requests": [item]}, api=GEMINI) == digests({"requests": [turned]}, api=GEMINI)


def test_vectors_are_taken_by_their_index() -> None:
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [float(index)]} for index in (1, 0)],
        "model": "m-1",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    read = read_vectors(OPENAI, answer, count=2)

    assert read is not None
    assert read.vectors == [[0.0], [1.0]]
    assert read.rest == {"object": "list", "model": "m-1", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    again = json.loads(write_answer(OPENAI, [b"[0.0]", b"[1.0]"], read.rest))
    assert again == {**answer, "data": list(reversed(answer["data"]))}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": "1", "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0], "new": 1}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": None}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ""}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": 0}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": {}}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": True}],
        [{"index": 0, "embedding": [1.0]}, {"index": [], "embedding": [1.0]}],
        "x",
        [1, 2],
    ],
)
def test_an_answer_that_is_not_understood_gives_no_vectors(data: Any) -> None:
    assert read_vectors(OPENAI, {"data": data}, count=2) is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"embeddings": [{"values": [1.0], "statistics": {}}]},
        {"embeddings": [{"values": None}]},
        {"embeddings": [{"values": []}]},
    ],
)
def test_an_answer_of_gemini_that_is_not_understood_gives_no_vectors(document: Any) -> None:
    assert read_vectors(GEMINI, document, count=1) is None


def test_geminis_answers_are_put_together_in_its_own_shape() -> None:
    read = read_vectors(GEMINI, {"embeddings": [{"values": [1.5]}], "usageMetadata": {"promptTokenCount": 1}}, count=1)

    assert read is not None
    assert json.loads(write_answer(GEMINI, [b"[1.5]"], read.rest)) == {
        "embeddings": [{"values": [1.5]}],
        "usageMetadata": {"promptTokenCount": 1},
    }
    assert json.loads(write_answer(GEMINI, [b"[1.5]"], rest_of_hits(GEMINI, "m"))) == {
        "embeddings": [{"values": [1.5]}]
    }


def test_an_answer_for_which_nobody_was_asked_used_nothing() -> None:
    answer = json.loads(write_answer(OPENAI, [b'"AAAA"'], rest_of_hits(OPENAI, "m-1")))

    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": "AAAA"}],
        "model": "m-1",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_SHORT_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.lists(_SHORT_FLOATS, min_size=1)
    | st.lists(_FLOATS, min_size=1)
    | st.lists(st.integers(-9, 9) | _FLOATS)
    | st.text()
    | st.none()
)
def test_a_vector_comes_back_number_for_number(value: Any) -> None:
    kind, packed = pack(value)

    again = json.loads(unpack(kind, packed))

    assert (again, [type(one) for one in again or ()]) == (value, [type(one) for one in value or ()])


def test_numbers_of_32_bits_take_four_bytes_each() -> None:
    values = [struct.unpack("<f", struct.pack("<f", number / 7))[0] for number in range(1536)]
    kind, packed = pack(values)

    assert (kind, len(packed)) == ("f4", 4 * 1536)
    assert pack([0.1])[0] == "f8"


@pytest.mark.parametrize(("kind", "packed"), [("f4", b"123"), ("f16", b"12"), ("", b"")])
def test_what_was_not_packed_here_is_refused(kind: str, packed: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them makes a miss
        unpack(kind, packed)
