"""A request of another language, said to a provider of the Responses API.

What the application could not have meant is said outright: `store: false` (no other API keeps answers by itself), and
`strict: false` for tools that do not say it (no other API is strict by itself). An image without `detail` gets `auto`.

Refused: stop sequences, several choices, fewer than 16 output tokens (OpenAI's least), audio and video, files by id,
media in an assistant's turn, tools that another provider runs.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.translation.conversation import (
    Conversation,
    Reasoning,
    Role,
    ServerTool,
    Tool,
    ToolChoice,
    ToolUse,
    Turn,
)
from llm_sidecar.translation.foreign import check_conversation, leave_out
from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.openai_responses import marks
from llm_sidecar.translation.openai_responses.content import data_url
from llm_sidecar.translation.openai_responses.items import encode_reasoning
from llm_sidecar.translation.openai_responses.requests import LOGPROBS, USE_WORDS, encode_format
from llm_sidecar.translation.parts import (
    NOTHING,
    Media,
    MediaKind,
    Native,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolKind,
    ToolResult,
)

ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"
LEAST_OUTPUT_TOKENS: Final = 16
_IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"})
_LOW_BUDGET_TOKENS: Final = 2048
_MEDIUM_BUDGET_TOKENS: Final = 8192
_MOST_USER_CHARACTERS: Final = 64
_FILE_NAMES: Final = {"application/pdf": "document.pdf", "text/plain": "document.txt"}


def encode_foreign(conversation: Conversation, *, model: str, losses: Losses) -> dict[str, Any]:
    """Raises `Untranslatable`."""
    check_conversation(conversation, losses)
    _refuse(conversation)
    _drop_settings(conversation, losses)
    fields = {
        "model": model,
        "input": _Input(losses).items(conversation.turns),
        "store": False,
        "stream": True if conversation.stream else None,
        "instructions": _instructions(conversation, losses),
        "tools": [_tool(tool, losses) for tool in conversation.tools] or None,
        "tool_choice": _tool_choice(conversation),
        "parallel_tool_calls": conversation.tool_choice.parallel if conversation.tool_choice else None,
        "text": _text(conversation),
        "max_output_tokens": conversation.max_output_tokens,
        "temperature": conversation.sampling.temperature,
        "top_p": conversation.sampling.top_p,
        "reasoning": _reasoning(conversation.reasoning),
        "user": _user(conversation, losses),
        "metadata": _metadata(conversation, losses),
        **_included(conversation),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _refuse(conversation: Conversation) -> None:
    if conversation.stop:
        raise Untranslatable("stop sequences")
    if (conversation.choices or 1) > 1:
        raise Untranslatable("several choices")
    least = conversation.max_output_tokens
    if least is not None and least < LEAST_OUTPUT_TOKENS:
        raise Untranslatable(f"fewer than {LEAST_OUTPUT_TOKENS} output tokens")


def _drop_settings(conversation: Conversation, losses: Losses) -> None:
    for name in ("top_k", "presence_penalty", "frequency_penalty", "seed"):
        if getattr(conversation.sampling, name) is not None:
            losses.drop(name)


def _instructions(conversation: Conversation, losses: Losses) -> str | None:
    for part in conversation.system:
        _drop_marks(part, losses)
    return "\n\n".join(part.text for part in conversation.system) if conversation.system else None


def _drop_marks(part: Text | Media | ToolCall | ToolResult | Tool, losses: Losses) -> None:
    """OpenAI caches by itself; only its newest models take a marker."""
    if part.marker is not None:
        losses.drop("cache_control")
    if isinstance(part, Text | ToolCall) and part.signature is not None:
        losses.drop("thought_signature")
    if isinstance(part, Text) and part.citations:
        losses.drop("citations")


class _Input:
    """Makes the items. Keeps the ids that it makes up for calls without one, for their results."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._unanswered: defaultdict[str, deque[str]] = defaultdict(deque)

    def items(self, turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
        """The whole input."""
        return [item for index, turn in enumerate(turns) for item in self._turn(turn, index)]

    def _turn(self, turn: Turn, index: int) -> list[dict[str, Any]]:
        if turn.name is not None:
            self._losses.drop("messages.name")
        items: list[dict[str, Any]] = []
        content: list[Part] = []
        for number, part in enumerate(turn.parts):
            if isinstance(part, Text | Refusal | Media):
                content.append(part)
                continue
            item = self._item(part, f"{index}_{number}")
            if item is not None:
                items += self._messages(turn.role, content, f"{index}_{number}")
                content = []
                items.append(item)
        return items + self._messages(turn.role, content, f"{index}_{len(turn.parts)}")

    def _item(self, part: Part, place: str) -> dict[str, Any] | None:
        if isinstance(part, Thinking):
            return encode_reasoning(part, self._losses)
        if isinstance(part, ToolCall):
            return self._call(part, place)
        if isinstance(part, ToolResult):
            return self._result(part)
        if isinstance(part, Native):
            leave_out(part, self._losses)
            return None
        raise Untranslatable(type(part).__name__)

    def _messages(self, role: Role, content: list[Part], place: str) -> list[dict[str, Any]]:
        if role is Role.ASSISTANT:
            return [self._said(part, f"{place}_{index}") for index, part in enumerate(content)]
        if not content:
            return []
        word = "system" if role is Role.SYSTEM else "user"
        if len(content) == 1 and isinstance(content[0], Text):
            _drop_marks(content[0], self._losses)
            return [{"role": word, "content": content[0].text}]
        return [{"role": word, "content": [self._content(part) for part in content]}]

    def _said(self, part: Part, place: str) -> dict[str, Any]:
        """What the assistant said: text in short; a refusal is only known within a whole message."""
        if isinstance(part, Text):
            _drop_marks(part, self._losses)
            return {"role": "assistant", "content": part.text}
        if isinstance(part, Refusal):
            return {
                "type": "message",
                "id": f"msg{marks.MARK}{place}",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "refusal", "refusal": part.text}],
            }
        raise Untranslatable("media in an assistant's turn")

    def _content(self, part: Part) -> dict[str, Any]:
        if isinstance(part, Text):
            _drop_marks(part, self._losses)
            return {"type": "input_text", "text": part.text}
        if isinstance(part, Media):
            _drop_marks(part, self._losses)
            return _media(part)
        raise Untranslatable("a refusal outside an assistant's turn")

    def _call(self, part: ToolCall, place: str) -> dict[str, Any]:
        _drop_marks(part, self._losses)
        call_id = part.id
        if not call_id:
            call_id = f"call_{place}"
            self._unanswered[part.name].append(call_id)
        if part.kind is ToolKind.CUSTOM:
            return {
                "type": "custom_tool_call",
                "call_id": call_id,
                "name": part.name,
                "input": part.arguments_text(),
            }
        return {
            "type": "function_call",
            "call_id": call_id,
            "name": part.name,
            "arguments": part.arguments_text() or "{}",
        }

    def _result(self, part: ToolResult) -> dict[str, Any]:
        _drop_marks(part, self._losses)
        if part.is_error:
            self._losses.drop("is_error")
        call_id = part.call_id
        if not call_id:
            waiting = self._unanswered[part.name or ""]
            if not waiting:
                raise Untranslatable("a tool's result without its call")
            call_id = waiting.popleft()
        kind = "custom_tool_call_output" if part.kind is ToolKind.CUSTOM else "function_call_output"
        return {"type": kind, "call_id": call_id, "output": self._output(part)}

    def _output(self, part: ToolResult) -> str | list[dict[str, Any]]:
        if part.result is not None:
            if part.content:
                raise Untranslatable("a tool's result that is both an object and content")
            return orjson.dumps(dict(part.result)).decode()
        if all(isinstance(each, Text) for each in part.content) and len(part.content) <= 1:
            return "".join(each.text for each in part.content if isinstance(each, Text))
        return [self._content(each) for each in part.content]


def _media(part: Media) -> dict[str, Any]:
    if part.file_id is not None:
        raise Untranslatable("a file by its id at another provider")
    if part.url is not None and not part.url.startswith(("https://", "http://")):
        raise Untranslatable("a file by a URL that is not HTTP")
    if part.kind is MediaKind.IMAGE:
        return _image(part)
    if part.kind is not MediaKind.DOCUMENT:
        raise Untranslatable(f"{part.kind.value} input")
    if part.url is not None:
        return {"type": "input_file", "file_url": part.url}
    name = part.name or _FILE_NAMES.get(part.media_type or "")
    if name is None:
        raise Untranslatable("a file without a name, neither PDF nor plain text")
    return {"type": "input_file", "filename": name, "file_data": data_url(part)}


def _image(part: Media) -> dict[str, Any]:
    if part.data is not None and part.media_type not in _IMAGE_TYPES:
        raise Untranslatable("an image that is not PNG, JPEG, WebP or GIF")
    url = part.url if part.url is not None else f"data:{part.media_type};base64,{part.data}"
    return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}


def _tool(tool: Tool | ServerTool, losses: Losses) -> dict[str, Any]:
    if isinstance(tool, ServerTool):
        raise Untranslatable(f"the tool `{tool.kind}`, which its own provider runs")
    _drop_marks(tool, losses)
    described = {} if tool.description is None else {"description": tool.description}
    if tool.kind is ToolKind.CUSTOM:
        return {"type": "custom", "name": tool.name, **described}
    return {
        "type": "function",
        "name": tool.name,
        **described,
        "parameters": tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}},
        "strict": tool.strict is True,
    }


def _tool_choice(conversation: Conversation) -> Any:
    choice = conversation.tool_choice
    if choice is None or choice.use is None:
        return None
    if choice.use is ToolUse.NAMED:
        return _named(conversation, choice.names[0])
    word = USE_WORDS[choice.use]
    return _allowed(conversation, choice, word) if choice.names else word


def _allowed(conversation: Conversation, choice: ToolChoice, word: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": word, "tools": [_named(conversation, name) for name in choice.names]}


def _named(conversation: Conversation, name: str) -> dict[str, Any]:
    kinds = {tool.name: tool.kind for tool in conversation.tools if isinstance(tool, Tool)}
    return {"type": kinds.get(name, ToolKind.FUNCTION).value, "name": name}


def _text(conversation: Conversation) -> dict[str, Any] | None:
    output = conversation.output
    if output is None:
        return None
    # OpenAI wants a name for every schema.
    named = replace(output, name=output.name or "answer", extra=NOTHING)
    return {"format": encode_format(named)}


def _reasoning(reasoning: Reasoning | None) -> dict[str, Any] | None:
    if reasoning is None:
        return None
    effort = reasoning.effort if reasoning.effort is not None else _effort(reasoning.budget_tokens)
    document = {} if effort is None else {"effort": effort}
    if reasoning.visible:
        document["summary"] = "auto"
    return document or None


def _effort(budget_tokens: int | None) -> str | None:
    """The nearest of OpenAI's efforts; None where the model is to decide, which it does by itself."""
    if budget_tokens is None or budget_tokens < 0:
        return None
    if budget_tokens == 0:
        return "none"
    if budget_tokens <= _LOW_BUDGET_TOKENS:
        return "low"
    return "medium" if budget_tokens <= _MEDIUM_BUDGET_TOKENS else "high"


def _user(conversation: Conversation, losses: Losses) -> str | None:
    if conversation.user is not None and len(conversation.user) > _MOST_USER_CHARACTERS:
        losses.drop("user")
        return None
    return conversation.user


def _metadata(conversation: Conversation, losses: Losses) -> dict[str, Any] | None:
    """Labels, as OpenAI takes them. It takes them from unstored calls as well."""
    metadata = conversation.metadata
    if metadata is None:
        return None
    if len(metadata) <= 16 and all(isinstance(value, str) for value in metadata.values()):
        return dict(metadata)
    losses.drop("metadata")
    return None


def _included(conversation: Conversation) -> dict[str, Any]:
    """What OpenAI tells on request only.

    Thoughts that it does not store are to be handed back with the next turn, or the model thinks anew. Only Anthropic's
    API has a place to keep them at the application; and a model that does not think refuses to be asked.
    """
    include: list[str] = []
    logprobs, reasoning = conversation.logprobs, _reasoning(conversation.reasoning)
    wants_logprobs = logprobs is not None and bool(logprobs.wanted or logprobs.top)
    if wants_logprobs:
        include.append(LOGPROBS)
    thinks = reasoning is not None and reasoning.get("effort") != "none"
    if thinks and conversation.api is API.ANTHROPIC_MESSAGES:
        include.append(ENCRYPTED_REASONING)
    return {
        "include": include or None,
        "top_logprobs": logprobs.top if logprobs is not None and wants_logprobs else None,
    }
