"""What a simulated model answers, before any API gives it a shape.

An API file reads its request into a `Prompt`; `compose` makes the one `Answer` that all APIs would give; the API file
writes it in its own shape. So the three agree, and a token is counted by one rule: four characters, rounded up.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from llm_sidecar.simulate.schema import example

if TYPE_CHECKING:
    from llm_sidecar.simulate.faults import Faults

JSONObject: TypeAlias = dict[str, Any]

CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 3
TOKENS_PER_IMAGE: Final = 85
_ECHOED_CHARACTERS: Final = 400
_DEFAULT_PIECES: Final = 16
_THINKING: Final = "The user expects a short reply, so I repeat what was said."
_PADDING: Final = " The quick brown fox jumps over the lazy dog."
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def count_tokens(characters: int) -> int:
    """Return the tokens of that many characters: the only counting rule of the simulator."""
    return -(-characters // CHARACTERS_PER_TOKEN)


class Finish(StrEnum):
    """Why an answer ends."""

    STOP = "stop"
    LENGTH = "length"
    TOOL = "tool"
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """True token counts; `input` includes the cached ones, `output` includes the thinking."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    schema: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A generation request, whatever API it came in."""

    model: str
    text: str
    """The last user text."""
    tool_result: str | None = None
    """What a tool answered, where the last turn is one."""
    input_tokens: int
    image_count: int = 0
    tools: tuple[Tool, ...] = ()
    must_call: tuple[str, ...] = ()
    """Names of the tools of which one must be called."""
    may_call: bool = True
    parallel: bool = True
    schema: Any = None
    """Of the answer itself; `{}` for any JSON object."""
    thinking: bool = False
    maximum_output_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    answer_count: int = 1
    stream: bool = False
    include_usage: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call that the model asks for."""

    name: str
    arguments: JSONObject

    @property
    def arguments_json(self) -> str:
        """The arguments as the APIs that tell a string tell them."""
        return orjson.dumps(self.arguments).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says."""

    text: str = ""
    pieces: tuple[str, ...] = ()
    """The text as a stream tells it."""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str = ""
    finish: Finish = Finish.STOP
    stop_sequence: str | None = None
    usage: Usage
    tell_usage: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream, before it is put into bytes."""

    data: JSONObject | str
    event: str | None = None
    piece: str | None = None
    """The generated content that it carries."""
    is_thought: bool = False
    """That content is thinking, whose tokens are counted apart."""
    terminal: bool = False
    """From here on the stream only says that it is complete."""
    tells: Usage | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one answer's ids its own, and still the same in every run."""

    number: int
    created_seconds: int
    seed: int = 0

    def token(self, label: str, length: int) -> str:
        """Return `length` letters and digits that depend on the request's number, the seed and `label` alone."""
        digest = hashlib.shake_128(f"{self.seed}/{self.number}/{label}".encode()).digest(length)
        return "".join(_ALPHABET[byte % 62] for byte in digest)

    def hexadecimal(self, label: str, length: int) -> str:
        """Return `length` hexadecimal digits, as some ids are made of."""
        return hashlib.shake_128(f"{self.seed}/{self.number}/{label}".encode()).hexdigest((length + 1) // 2)[:length]


def compose(prompt: Prompt, faults: Faults) -> Answer:
    """Answer a prompt: tool calls where they are due, JSON where a schema was given, else an echo."""
    thinking, thinking_tokens = _thinking(prompt, faults)
    calls = _tool_calls(prompt)
    limit = None if prompt.maximum_output_tokens is None else max(0, prompt.maximum_output_tokens - thinking_tokens)
    if prompt.maximum_output_tokens is not None:
        thinking_tokens = min(thinking_tokens, prompt.maximum_output_tokens)
    if calls and (limit is None or _call_tokens(calls) <= limit):
        answer = Answer(tool_calls=calls, finish=Finish.TOOL, usage=Usage(output_tokens=_call_tokens(calls)))
    else:
        answer = _said(prompt, faults, limit)
    return replace(
        answer,
        thinking=thinking,
        tell_usage=faults.usage != "none",
        usage=Usage(
            input_tokens=prompt.input_tokens,
            cached_input_tokens=min(faults.cached_tokens, prompt.input_tokens),
            output_tokens=answer.usage.output_tokens * prompt.answer_count + thinking_tokens,
            thinking_tokens=thinking_tokens,
        ),
    )


def split(text: str, count: int | None = None) -> tuple[str, ...]:
    """Cut a text into the pieces of a stream: `count` even ones, else words."""
    if not text:
        return ()
    if count is None:
        words = re.findall(r"\s*\S+|\s+$", text)
        size = -(-len(words) // _DEFAULT_PIECES)
        return tuple("".join(words[start : start + size]) for start in range(0, len(words), size))
    bounds = [len(text) * index // count for index in range(count + 1)]
    return tuple(text[start:end] for start, end in pairwise(bounds) if end > start)


def _thinking(prompt: Prompt, faults: Faults) -> tuple[str, int]:
    if faults.thinking_tokens is not None:
        return (_THINKING if prompt.thinking else ""), faults.thinking_tokens
    return (_THINKING, count_tokens(len(_THINKING))) if prompt.thinking else ("", 0)


def _said(prompt: Prompt, faults: Faults, limit: int | None) -> Answer:
    text, finish, stopped_by = _text(prompt), Finish.STOP, None
    if prompt.schema is None:
        least = max(faults.answer_bytes or 0, faults.chunks or 0)
        text += (_PADDING * (max(0, least - len(text)) // len(_PADDING) + 1))[: max(0, least - len(text))]
        for sequence in prompt.stop_sequences:
            if sequence and sequence in text:
                text, finish, stopped_by = text[: text.index(sequence)], Finish.STOP_SEQUENCE, sequence
    if limit is not None and count_tokens(len(text)) > limit:
        text, finish, stopped_by = text[: limit * CHARACTERS_PER_TOKEN], Finish.LENGTH, None
    pieces = split(text, faults.chunks)
    if faults.oversized_frame_bytes is not None:
        pieces = (*pieces[:1], "x" * faults.oversized_frame_bytes, *pieces[1:])
        text = "".join(pieces)
    tokens = count_tokens(len(text))
    return Answer(text=text, pieces=pieces, finish=finish, stop_sequence=stopped_by, usage=Usage(output_tokens=tokens))


def _text(prompt: Prompt) -> str:
    if prompt.schema is not None:
        return orjson.dumps(example(prompt.schema or {"type": "object"})).decode()
    seen = f" I see {prompt.image_count} image{'s'[: prompt.image_count > 1]}." if prompt.image_count else ""
    if prompt.tool_result is not None:
        return f"{prompt.model} (simulated) read the tool's result: {prompt.tool_result[:_ECHOED_CHARACTERS]}"
    return f"{prompt.model} (simulated) heard: {prompt.text[:_ECHOED_CHARACTERS]}{seen}"


def _tool_calls(prompt: Prompt) -> tuple[ToolCall, ...]:
    if not prompt.may_call or not prompt.tools or (prompt.tool_result is not None and not prompt.must_call):
        return ()
    wanted = prompt.text.lower()
    allowed = [tool for tool in prompt.tools if not prompt.must_call or tool.name in prompt.must_call]
    called = [tool for tool in allowed if _is_mentioned(tool.name.lower(), wanted)]
    if not called and (prompt.must_call or re.search(r"\b(tools?|functions?)\b", wanted)):
        called = allowed[:1]
    if called and prompt.parallel and "parallel" in wanted:
        called = allowed if len(allowed) > 1 else allowed * 2
    if not prompt.parallel:
        called = called[:1]
    return tuple(ToolCall(name=tool.name, arguments=_arguments(tool)) for tool in called)


def _is_mentioned(name: str, text: str) -> bool:
    return name in text or any(len(word) > 3 and word in text for word in re.split(r"[^a-z0-9]+", name))


def _arguments(tool: Tool) -> JSONObject:
    made = example(tool.schema or {"type": "object"})
    return made if isinstance(made, dict) else {}


def _call_tokens(calls: tuple[ToolCall, ...]) -> int:
    return sum(count_tokens(len(call.name) + len(call.arguments_json)) for call in calls)
