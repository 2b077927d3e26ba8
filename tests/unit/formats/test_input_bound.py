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
    ],
)
def test_what_comes_from_elsewhere_or_is_no_text_has_no_bound(api: API, body: dict[str, Any]) -> None:
    assert input_tokens_at_most(parsed(api, body)) is None


def test_counting_tokens_takes_none() -> None:
    request = parsed(API.ANTHROPIC_MESSAGES, {"messages": TEXT}, kind=RequestType.TOKEN_COUNT)
    assert input_tokens_at_most(request) == 0
