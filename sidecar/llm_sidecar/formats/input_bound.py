"""The most input tokens that a request can have, where its body alone decides that. Pure.

Every tokenizer in use works on bytes or falls back to them, so no text has more tokens than bytes. What a provider
puts around it (roles, its own words about tools) is bounded, too. What images, files and sounds take, what a provider
fetches, or what it remembers from before, nobody can tell from the body.

So the tables here name what is text, or a setting that brings no input: whatever they do not name has no bound, be it
new, of some server only, or spelled to be overlooked. It is decided on the parsed document, not on how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.estimate import has_parts

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest

FRAME_TOKENS: Final = 64
"""For what stands around any request. What surrounds a message is less than its own JSON has bytes."""
TOOLS_TOKENS: Final = 1024
"""For the words about tools that a provider adds; Anthropic documents up to some 700."""

_Check = Callable[[Any], bool]
_Members = Mapping[str, _Check]
_Kinds = Mapping[str | None, _Members]


def input_tokens_at_most(request: ParsedRequest) -> int | None:
    """An upper bound; None where the body does not tell it."""
    if request.call.type is RequestType.TOKEN_COUNT:
        return 0
    document = request.document
    # The look at the bytes is for names that stand twice in one object: of those, a parser keeps whichever it likes.
    if request.stateful or not _has_only(document, _REQUESTS[request.call.api]) or has_parts(request.body):
        return None
    return text_tokens_at_most(request)


def text_tokens_at_most(request: ParsedRequest) -> int:
    """As many tokens as all that stands in the body can be, taken as text."""
    return len(request.body) + FRAME_TOKENS + (TOOLS_TOKENS if request.document.get("tools") else 0)


# --- what a value may be


def _json(_value: object) -> bool:
    """Anything: it stands in the body as it is, as text."""
    return True


def _nothing(value: object) -> bool:
    return not value


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _has_only(holder: object, members: _Members) -> bool:
    if not isinstance(holder, dict):
        return False
    for name, value in holder.items():  # a generator would take half as long again
        check = members.get(name)
        if check is None or not check(value):
            return False
    return True


def _one(members: _Members) -> _Check:
    """An object with no other members than these, or nothing."""
    return lambda value: not value or _has_only(value, members)


def _all(check: _Check) -> _Check:
    """An array of these, or nothing."""
    return lambda value: not value or (isinstance(value, list) and all(map(check, value)))


def _one_or_all(check: _Check) -> _Check:
    """As protobuf allows for what may come several times."""
    several = _all(check)
    return lambda value: check(value) if isinstance(value, dict) else several(value)


def _typed(kinds: _Kinds) -> _Check:
    """An array of objects, each with the members of its `type`; or nothing."""

    def check(item: object) -> bool:
        kind = item.get("type") if isinstance(item, dict) else ""
        members = kinds.get(kind) if _text(kind) else None
        return members is not None and _has_only(item, members)

    return _all(check)


def _content(kinds: _Kinds) -> _Check:
    """A text, or an array of parts that are texts."""
    parts = _typed(kinds)
    return lambda value: isinstance(value, str) or parts(value)


def _settings(names: str) -> _Members:
    return dict.fromkeys(names.split(), _json)


def _tool(value: object) -> bool:
    """One that the application runs itself: its words are its own."""
    return isinstance(value, dict) and value.get("type") in (None, "function", "custom")


def _token_ids_or_texts(value: object) -> bool:
    if not isinstance(value, list):
        return _text(value)
    kinds = set(map(type, value))
    if kinds == {list}:
        return all(set(map(type, one)) <= {int} for one in value)
    return kinds <= {str, int}


# --- OpenAI chat, also as other servers have extended it

_PART: Final = _settings("type cache_control prompt_cache_breakpoint")
_CHAT_CONTENT: Final = _content({"text": {**_PART, "text": _text}, "refusal": {**_PART, "refusal": _text}})
_CALLED: Final = _settings("id type index")
_CHAT_MESSAGE: Final[_Members] = {
    **_settings("role function_call tool_call_id annotations prefix cache_control"),
    **dict.fromkeys(("name", "refusal", "reasoning", "reasoning_content"), _text),
    "content": _CHAT_CONTENT,
    "tool_calls": _typed(
        {
            "function": {**_CALLED, "function": _one({"name": _text, "arguments": _json})},
            "custom": {**_CALLED, "custom": _one({"name": _text, "input": _json})},
        }
    ),
    "audio": _nothing,
}
_CHAT: Final[_Members] = {
    **_settings(
        "model frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata "
        "modalities n parallel_tool_calls presence_penalty prompt_cache_key prompt_cache_options "
        "prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream "
        "stream_options temperature tool_choice top_logprobs top_p user verbosity audio "
        "top_k min_p top_a repetition_penalty length_penalty ignore_eos min_tokens stop_token_ids"
    ),
    "messages": _all(lambda message: _has_only(message, _CHAT_MESSAGE)),
    "prediction": lambda value: not value or _typed({"content": {"type": _text, "content": _CHAT_CONTENT}})([value]),
    "tools": _all(_tool),
    "web_search_options": lambda value: value is None,
}

# --- OpenAI Responses

_RESPONSES_CONTENT: Final = _content(
    {
        "input_text": {**_PART, "text": _text},
        "output_text": {**_PART, **_settings("annotations logprobs"), "text": _text},
        "refusal": {**_PART, "refusal": _text},
    }
)
_ITEM: Final = {**_settings("type id call_id status name namespace async"), "caller": _nothing}
_RESPONSES_MESSAGE: Final[_Members] = {**_settings("type id status role phase"), "content": _RESPONSES_CONTENT}
_RESPONSES_ITEMS: Final = _typed(
    {
        None: _RESPONSES_MESSAGE,
        "message": _RESPONSES_MESSAGE,
        "function_call": {**_ITEM, "arguments": _json},
        "function_call_output": {**_ITEM, "output": _RESPONSES_CONTENT},
        "custom_tool_call": {**_ITEM, "input": _json},
        "custom_tool_call_output": {**_ITEM, "output": _RESPONSES_CONTENT},
    }
)


def _responses_input(value: object) -> bool:
    if isinstance(value, list) and any(isinstance(item, dict) and item.keys() <= {"id", "type"} for item in value):
        return False  # a reference to an item that OpenAI keeps, also without its type
    return isinstance(value, str) or _RESPONSES_ITEMS(value)


_RESPONSES: Final[_Members] = {
    **_settings(
        "model include max_output_tokens max_tool_calls metadata parallel_tool_calls prompt_cache_key "
        "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream "
        "stream_options temperature text tool_choice top_logprobs top_p truncation user background"
    ),
    "input": _responses_input,
    "instructions": _text,
    "tools": _all(_tool),
    **dict.fromkeys(("previous_response_id", "conversation", "prompt"), _nothing),
}

# --- Anthropic

_BLOCK: Final = {**_settings("type id cache_control"), "caller": _one({"type": lambda kind: kind == "direct"})}
_TEXT_BLOCK: Final[_Members] = {**_BLOCK, "text": _text, "citations": _nothing}
_TEXT_BLOCKS: Final = _content({"text": _TEXT_BLOCK})
_BLOCKS: Final = _content(
    {
        "text": _TEXT_BLOCK,
        "tool_use": {**_BLOCK, "name": _text, "input": _json, "toolset_name": _nothing},
        "tool_result": {
            **_BLOCK,
            **_settings("tool_use_id is_error"),
            "content": _TEXT_BLOCKS,
            "toolset_name": _nothing,
        },
    }
)
_ANTHROPIC: Final[_Members] = {
    **_settings(
        "model max_tokens cache_control inference_geo metadata output_config output_format service_tier speed "
        "stop_sequences stream temperature thinking tool_choice top_k top_p"
    ),
    "messages": _all(lambda message: _has_only(message, {"role": _text, "content": _BLOCKS})),
    "system": _TEXT_BLOCKS,
    "tools": _all(_tool),
    **dict.fromkeys(("mcp_servers", "container"), _nothing),
}

# --- Gemini


def _both_spellings(members: _Members) -> _Members:
    """As protobuf allows: `systemInstruction` is `system_instruction`."""
    snake = {"".join(f"_{one.lower()}" if one.isupper() else one for one in name): members[name] for name in members}
    return {**members, **snake}


_GEMINI_PART: Final = _both_spellings(
    {
        "text": _text,
        "thought": _json,
        "functionCall": _one(_settings("id name args")),
        "functionResponse": _one(
            {**_settings("id name response scheduling willContinue will_continue"), "parts": _nothing}
        ),
    }
)
_GEMINI_CONTENT: Final[_Members] = {
    "role": _text,
    "parts": _one_or_all(lambda part: _has_only(part, _GEMINI_PART)),
}
_GEMINI_TOOL: Final = _both_spellings({"functionDeclarations": _json})
_EMBEDDED: Final = _both_spellings(
    {**_settings("model taskType title outputDimensionality"), "content": _one(_GEMINI_CONTENT)}
)
_GEMINI: Final[_Members] = {
    **_EMBEDDED,
    **_both_spellings(
        {
            **_settings("safetySettings toolConfig generationConfig labels serviceTier store"),
            "contents": _one_or_all(lambda content: _has_only(content, _GEMINI_CONTENT)),
            "systemInstruction": _one(_GEMINI_CONTENT),
            "tools": _one_or_all(lambda tool: _has_only(tool, _GEMINI_TOOL)),
            "cachedContent": _nothing,
            "requests": _all(lambda one: _has_only(one, _EMBEDDED)),
        }
    ),
}

# --- all of them

_EMBEDDINGS: Final[_Members] = {
    **_settings("model dimensions encoding_format user input_type truncation output_dtype"),
    "input": _token_ids_or_texts,
}
_REQUESTS: Final[Mapping[API, _Members]] = {
    API.OPENAI_CHAT: _CHAT,
    API.OPENAI_RESPONSES: _RESPONSES,
    API.OPENAI_EMBEDDINGS: _EMBEDDINGS,
    API.ANTHROPIC_MESSAGES: _ANTHROPIC,
    API.GEMINI: _GEMINI,
}
