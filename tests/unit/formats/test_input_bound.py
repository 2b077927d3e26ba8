"""The most input tokens that a body can have, and when nobody can tell."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.input_bound import FRAME_TOKENS, TOOLS_TOKENS, input_tokens_at_most
from llm_sidecar.formats.registry import FORMATS

TEXT = [{"role": "user", "content": "How many tokens are in this?"}]
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}

VIDEO = {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}
SCREENSHOT = {
    "type": "computer_call_output",
    "call_id": "c",
    "output": {"type": "computer_screenshot", "image_url": "https://x/y.png"},
}
THOUGHT = [{"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "c2VjcmV0"}]}]


def parsed(api: API, body: dict[str, Any], *, kind: RequestType = RequestType.GENERATION) -> ParsedRequest:
    call = Call(api=api, type=kind, path="/", model="m" if api is API.GEMINI else None)
    return FORMATS[api].parse_request(call, orjson.dumps(body if api is API.GEMINI else {"model": "m", **body}))


@pytest.mark.parametrize(
    ("api", "body", "more"),
    [
        (API.OPENAI_CHAT, {"messages": TEXT}, 0),
        (API.OPENAI_CHAT, {"messages": TEXT, "tools": [FUNCTION]}, TOOLS_TOKENS),
        (API.OPENAI_RESPONSES, {"input": "hello", "store": False}, 0),
        (API.ANTHROPIC_MESSAGES, {"messages": TEXT, "max_tokens": 5}, 0),
        (API.ANTHROPIC_MESSAGES, {"messages": TEXT, "max_tokens": 5, "tools": [{"name": "f"}]}, TOOLS_TOKENS),
        (API.GEMINI, {"contents": [{"parts": [{"text": "hello"}]}]}, 0),
        (API.GEMINI, {"contents": {"parts": {"text": "hello"}}, "system_instruction": {"parts": {"text": "b"}}}, 0),
        (API.GEMINI, {"requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}}]}, 0),
        (API.OPENAI_EMBEDDINGS, {"input": ["one", "two"]}, 0),
        (API.OPENAI_EMBEDDINGS, {"input": [[1, 2], [3]]}, 0),
        (API.OPENAI_EMBEDDINGS, {"input": [1, 2, 3]}, 0),
        (
            API.GEMINI,
            {"contents": [{"parts": [{"text": "a"}]}], "tools": [{"functionDeclarations": [{"name": "f"}]}]},
            TOOLS_TOKENS,
        ),
    ],
)
def test_text_has_no_more_tokens_than_bytes(api: API, body: dict[str, Any], more: int) -> None:
    request = parsed(api, body)
    assert input_tokens_at_most(request) == len(request.body) + FRAME_TOKENS + more
    assert request.input_tokens_estimate <= len(request.body)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (
            API.OPENAI_CHAT,
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
                ]
            },
        ),
        (API.OPENAI_CHAT, {"messages": TEXT, "web_search_options": {"search_context_size": "low"}}),
        (API.OPENAI_RESPONSES, {"input": "hello", "previous_response_id": "resp_1"}),
        (API.OPENAI_RESPONSES, {"input": "hello", "tools": [{"type": "web_search"}]}),
        (API.OPENAI_RESPONSES, {"prompt": {"id": "pmpt_1"}}),
        (API.ANTHROPIC_MESSAGES, {"messages": TEXT, "max_tokens": 5, "tools": [{"type": "web_search_20250305"}]}),
        (API.ANTHROPIC_MESSAGES, {"messages": TEXT, "max_tokens": 5, "mcp_servers": [{"type": "url"}]}),
        (API.GEMINI, {"contents": [{"parts": [{"text": "a"}]}], "tools": [{"googleSearch": {}}]}),
        (API.GEMINI, {"contents": [{"parts": [{"fileData": {"fileUri": "gs://b/o"}}]}]}),
        (API.OPENAI_CHAT, {"messages": [{"role": "user", "content": [VIDEO]}]}),
        (API.OPENAI_CHAT, {"messages": [{"role": "user", "content": [{**VIDEO, "type": "text", "text": "a"}]}]}),
        (API.OPENAI_CHAT, {"messages": TEXT, "search_parameters": {"mode": "on"}}),
        (API.OPENAI_CHAT, {"messages": TEXT, "tools": {"type": "web_search"}}),
        (API.OPENAI_RESPONSES, {"store": False, "input": [SCREENSHOT]}),
        (API.OPENAI_RESPONSES, {"store": False, "input": [{"id": "msg_1"}]}),
        (API.OPENAI_EMBEDDINGS, {"input": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}),
        (API.OPENAI_EMBEDDINGS, {"messages": [{"role": "user", "content": "a"}]}),
        (API.ANTHROPIC_MESSAGES, {"messages": THOUGHT, "max_tokens": 5}),
        (API.GEMINI, {"contents": [{"parts": [{"text": "a", "thoughtSignature": "c2VjcmV0"}]}]}),
        (API.GEMINI, {"requests": [{"content": {"parts": [{"inline_data": {"data": "AAAA"}}]}}]}),
    ],
)
def test_what_comes_from_elsewhere_or_is_no_text_has_no_bound(api: API, body: dict[str, Any]) -> None:
    assert input_tokens_at_most(parsed(api, body)) is None


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (
            API.OPENAI_CHAT,
            (
                b'{"model":"m","messages":[{"role":"user","content":[{"type":"image\\u005furl",'
                b'"image\\u005furl":{"url":"https://x/y.png"}}]}]}'
            ),
        ),
        (API.GEMINI, b'{"contents":[{"parts":[{"file\\u0044ata":{"fileUri":"gs://b/o.mp4"}}]}]}'),
        (
            API.OPENAI_CHAT,
            (
                b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"},'
                b'"type":"text"}]}]}'
            ),
        ),
        (
            API.OPENAI_CHAT,
            (
                b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}],'
                b'"content":"hello"}]}'
            ),
        ),
    ],
    ids=["escaped type", "escaped key", "doubled type", "doubled content"],
)
def test_a_part_that_is_spelled_in_another_way_has_no_bound_either(api: API, body: bytes) -> None:
    call = Call(api=api, type=RequestType.GENERATION, path="/", model="m" if api is API.GEMINI else None)
    assert input_tokens_at_most(FORMATS[api].parse_request(call, body)) is None


def test_text_with_escapes_has_a_bound() -> None:
    body = b'{"model":"m","messages":[{"role":"us\\u0065r","content":"\\u00e9 \\"type\\":\\"image_url\\""}]}'
    call = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/")
    assert input_tokens_at_most(FORMATS[API.OPENAI_CHAT].parse_request(call, body)) is not None


def test_counting_tokens_takes_none() -> None:
    request = parsed(API.ANTHROPIC_MESSAGES, {"messages": TEXT}, kind=RequestType.TOKEN_COUNT)
    assert input_tokens_at_most(request) == 0
