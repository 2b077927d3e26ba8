"""Whatever comes: a value, or one of our own errors; never another exception, nor more memory than was granted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import FrameTooLarge
from llm_sidecar.translation.base import StreamDecoder
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.registry import EMBEDDING, GENERATING, embedding_translator, translator
from tests.unit.formats.streams import call_of
from tests.unit.translation.noise import ANYTHING, places
from tests.unit.translation.pairs import MODELS, PATHS, STREAM_REQUESTS
from tests.unit.translation.recordings import recorded

MAX_FRAME_BYTES: Final = 4096
quickly: Final = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
each_language: Final = pytest.mark.parametrize("api", GENERATING)
EMBEDDING_PATHS: Final = {
    API.OPENAI_EMBEDDINGS: "/v1/embeddings",
    API.GEMINI: "/v1beta/models/m:batchEmbedContents",
}
NAMES: Final = [
    *sorted({name for document in STREAM_REQUESTS.values() for name in document}),
    *("content", "role", "type", "text", "output", "tools", "tool_calls", "function", "name", "arguments", "id"),
    *("choices", "message", "parts", "functionCall", "candidates", "finishReason", "generationConfig", "system"),
    *("source", "data", "thinking", "signature", "usage", "stop", "status", "delta", "index", "system_instruction"),
    *("requests", "embedding", "values", "output_config", "format", "schema"),
]
JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "function", "text", "tool_use", "message", "stop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@each_language
@quickly
@given(document=JSON)
def test_any_json_is_a_request_or_undecodable(api: API, document: Any) -> None:
    _try_request(api, document)


@each_language
@quickly
@given(document=JSON)
def test_any_json_is_an_answer_or_undecodable(api: API, document: Any) -> None:
    _try_answer(api, document)


@pytest.mark.parametrize("api", EMBEDDING)
@quickly
@given(document=JSON, answer=JSON)
def test_any_json_is_a_request_to_embed_and_its_answer_or_undecodable(api: API, document: Any, answer: Any) -> None:
    translating = embedding_translator(api)
    try:
        request = translating.decode_request(call_of(EMBEDDING_PATHS[api]), document)
        for other in EMBEDDING:
            _encode_embedding(other, request)
        translating.decode_answer(request, answer)
    except Undecodable:
        return


def _encode_embedding(other: API, request: Any) -> None:
    try:
        embedding_translator(other).encode_request(request, model="m", losses=Losses())
    except Untranslatable:
        return


_ODD_SCHEMA: Final = {"type": "object", "properties": {}, "required": [[]], "additionalProperties": False}
_ODD_CITATIONS: Final = {"role": "assistant", "content": "Hi", "annotations": [None]}


def test_oddities_that_were_once_met_stay_harmless() -> None:
    _try_request(
        API.ANTHROPIC_MESSAGES,
        {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hi"}],
            "output_config": {"format": {"type": "json_schema", "schema": _ODD_SCHEMA}},
        },
    )
    _try_answer(API.OPENAI_CHAT, {"id": "c", "model": "m", "choices": [{"index": 0, "message": _ODD_CITATIONS}]})
    odd_block = {"type": "text", "text": "Hi", "citations": [None]}
    _try_answer(API.ANTHROPIC_MESSAGES, {"id": "m", "type": "message", "model": "m", "content": [odd_block]})


@pytest.mark.needs("recordings")
@each_language
@quickly
@given(data=st.data())
def test_a_recorded_request_of_which_something_is_anything_is_a_request_or_undecodable(
    api: API, data: st.DataObject
) -> None:
    _try_request(api, _mutated(data, data.draw(st.sampled_from(_requests(api)))))


@pytest.mark.needs("recordings")
@each_language
@quickly
@given(data=st.data())
def test_a_recorded_answer_of_which_something_is_anything_is_an_answer_or_undecodable(
    api: API, data: st.DataObject
) -> None:
    _try_answer(api, _mutated(data, data.draw(st.sampled_from(_answers(api)))))


@each_language
@quickly
@given(chunks=st.lists(st.binary(max_size=300) | JSON.map(lambda value: b"data: %b\n\n" % _dumped(value)), max_size=8))
def test_any_bytes_are_a_stream_or_undecodable_or_too_large(api: API, chunks: list[bytes]) -> None:
    _try_stream(api, chunks)


@pytest.mark.needs("recordings")
@each_language
@quickly
@given(data=st.data())
def test_a_recorded_stream_with_other_frames_is_a_stream_or_undecodable_or_too_large(
    api: API, data: st.DataObject
) -> None:
    """Frames left out, doubled, put elsewhere, or with something in them that is anything."""
    frames = data.draw(st.sampled_from(_streams(api)))
    shuffled = data.draw(st.lists(st.sampled_from(range(len(frames))), min_size=1, max_size=12))
    chosen = [frames[position] for position in (sorted(shuffled) if data.draw(st.booleans()) else shuffled)]
    _try_stream(api, [_other_frame(data, frame) for frame in chosen])


@each_language
def test_a_frame_without_an_end_is_given_up_before_it_takes_the_memory(api: API) -> None:
    decoder = translator(api).stream_decoder(max_frame_bytes=MAX_FRAME_BYTES)
    pieces = iter([b'data: {"', *[b"x" * 256] * (2 * MAX_FRAME_BYTES // 256)])
    with pytest.raises(FrameTooLarge):
        _feed_all(decoder, pieces)
    assert next(pieces, None) is not None, "it was given up only when all was fed"


def _feed_all(decoder: StreamDecoder, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        decoder.feed(piece)


def _try_request(api: API, document: Any) -> None:
    try:
        conversation = translator(api).decode_request(call_of(PATHS[api]), document)
    except Undecodable:
        return
    for other in GENERATING:
        try:
            encoded = translator(other).encode_request(conversation, model=MODELS[other], losses=Losses())
        except Untranslatable:
            continue
        json.dumps(dict(encoded.document))


def _try_answer(api: API, document: Any) -> None:
    """What could be read is written for all: it is paid for."""
    try:
        answer = translator(api).decode_answer(document)
    except Undecodable:
        return
    for other in GENERATING:
        json.dumps(dict(translator(other).encode_answer(answer, losses=Losses())))


def _try_stream(api: API, chunks: list[bytes]) -> None:
    """What could be read is written for all, up to where it could not."""
    events: list[Any] = []
    decoder = translator(api).stream_decoder(max_frame_bytes=MAX_FRAME_BYTES)
    try:
        for chunk in chunks:
            events += decoder.feed(chunk)
        events += decoder.finish()
    except (Undecodable, FrameTooLarge):
        pass
    for other in GENERATING:
        asked = translator(other).decode_request(call_of(PATHS[other]), STREAM_REQUESTS[other])
        translator(other).stream_encoder(asked, losses=Losses()).encode(events)


def _mutated(data: st.DataObject, document: Any) -> Any:
    copied = orjson.loads(orjson.dumps(document))
    found = places(copied)
    if not found:
        return data.draw(ANYTHING)
    holder, name = data.draw(st.sampled_from(found))
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[name]
    else:
        holder[name] = data.draw(ANYTHING)
    return copied


def _other_frame(data: st.DataObject, frame: bytes) -> bytes:
    before, marker, rest = frame.partition(b"data: ")
    if not marker or not rest.startswith(b"{") or data.draw(st.booleans()):
        return frame
    return before + marker + _dumped(_mutated(data, orjson.loads(rest.strip()))) + b"\n\n"


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


@cache
def _requests(api: API) -> list[Any]:
    """The shorter ones: what is odd in them stands nearer to the eye."""
    return _shortest([exchange.request for exchange in recorded(api)])


@cache
def _answers(api: API) -> list[Any]:
    answered = (exchange for exchange in recorded(api) if exchange.status == 200 and not exchange.is_stream)
    return _shortest([orjson.loads(exchange.response) for exchange in answered])


def _shortest(documents: list[Any]) -> list[Any]:
    return sorted(documents, key=lambda document: len(orjson.dumps(document)))[:40]


@cache
def _streams(api: API) -> list[list[bytes]]:
    streams = (exchange.response for exchange in recorded(api) if exchange.status == 200 and exchange.is_stream)
    return [[frame + b"\n\n" for frame in stream.replace(b"\r\n", b"\n").split(b"\n\n") if frame] for stream in streams]
