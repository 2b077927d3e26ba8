"""A stream that is translated: what cannot be read is told, and nothing reaches the application untranslated."""

from __future__ import annotations

import orjson
import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, FrameUnreadable
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.translated_call import Translations

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
