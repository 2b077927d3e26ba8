"""A stream that is translated: what cannot be read is told, and nothing reaches the application untranslated."""

from __future__ import annotations

import orjson
import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, FrameUnreadable
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translated_call import TranslatedCall, Translations
from llm_sidecar.translation.losses import Undecodable

CALLS = {
    API.OPENAI_CHAT: (
        Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions"),
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]},
    ),
    API.GEMINI: (
        Call(
            api=API.GEMINI,
            type=RequestType.GENERATION,
            path="/v1beta/models/m:streamGenerateContent",
            model="m",
            stream=True,
            stream_is_json_array=True,
        ),
        {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
    ),
}
SAID = orjson.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "said"}})
READABLE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg","type":"message","role":"assistant",'
    b'"model":"c","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":0}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text",'
    b'"text":""}}\n\n'
    b"event: content_block_delta\ndata: " + SAID + b"\n\n"
)
BROKEN = b'event: content_block_delta\ndata: {"broken": \n\n'


@pytest.mark.parametrize("api", CALLS)
def test_what_came_together_with_a_malformed_frame_is_translated_too(api: API) -> None:
    call, body = CALLS[api]
    asked = FORMATS[api].parse_request(call, orjson.dumps(body))
    translated = Translations(asked).to(API.ANTHROPIC_MESSAGES, model="c")
    observer = translated.observe(max_frame_bytes=1000)

    with pytest.raises(FrameUnreadable) as raised:
        observer.feed(READABLE + BROKEN)
    relayed = raised.value.readable + observer.error_tail(502, "stream_interrupted", "it broke")

    assert b"said" in relayed
    assert b"content_block" not in relayed
    if api is API.GEMINI:
        assert [*orjson.loads(relayed)[-1]] == ["error"]
    else:
        documents = [orjson.loads(frame.removeprefix(b"data: ")) for frame in relayed.split(b"\n\n") if frame]
        assert [document.get("object") for document in documents[:-1]] == ["chat.completion.chunk"] * (
            len(documents) - 1
        )
        assert "error" in documents[-1]


GARBLED = orjson.dumps({"candidates": [{"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]})
BEGUN = orjson.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": "said"}]}, "index": 0}]})


def asked_of_gemini(api: API) -> TranslatedCall:
    call, body = CALLS_TO_GEMINI[api]
    return Translations(FORMATS[api].parse_request(call, orjson.dumps(body))).to(API.GEMINI, model="gemini-3-pro")


CALLS_TO_GEMINI = {
    API.OPENAI_CHAT: CALLS[API.OPENAI_CHAT],
    API.ANTHROPIC_MESSAGES: (
        Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/v1/messages"),
        {"model": "m", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    ),
    API.OPENAI_RESPONSES: (
        Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses"),
        {"model": "m", "stream": True, "store": False, "input": "x"},
    ),
}


@pytest.mark.parametrize("api", CALLS_TO_GEMINI)
def test_a_stream_that_ends_with_a_call_that_cannot_be_read_is_no_answer(api: API) -> None:
    observer = asked_of_gemini(api).observe(max_frame_bytes=1000)
    relayed = observer.feed(b"data: %b\n\ndata: %b\n\n" % (BEGUN, GARBLED))

    with pytest.raises(FrameUnreadable, match="a tool call that cannot be read"):
        observer.finish()

    assert b"said" in relayed
    assert not observer.ended, "or the end of the provider's stream would pass for the answer's"
    assert observer.finish() == b""


@pytest.mark.parametrize("api", CALLS_TO_GEMINI)
def test_an_answer_with_a_call_that_cannot_be_read_is_none(api: API) -> None:
    with pytest.raises(Undecodable, match="a tool call that cannot be read"):
        asked_of_gemini(api).answer(GARBLED)
