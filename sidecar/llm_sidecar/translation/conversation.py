"""A request to generate, as all languages can say it.

`extra`, here and in every part, holds what the document said beyond the fields of the middle, under the names of its
own API and in its spelling. The encoder of the same API puts it back, so that decoding and encoding lose nothing. The
encoder of another API tells each name in it: as dropped where it is harmless, or by `Untranslatable`. What an API means
when a field is left out stays left out (None, or an empty tuple), and is never filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llm_sidecar.contract.names import API
from llm_sidecar.translation.parts import NOTHING, CacheMarker, Document, Part, Text, ToolCall, ToolKind


class Role(StrEnum):
    """Whose turn it is."""

    SYSTEM = "system"
    """Instructions within the list of messages (OpenAI's `system` and `developer`)."""
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """Results of tools in a message of their own. APIs that put them into the user's turn decode to USER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message. Neighbours may have the same role: encoders join them where their API wants turns to alternate."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    """Of the participant."""
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that the application runs."""

    name: str
    description: str | None = None
    parameters: Document | None = None
    """JSON Schema of the arguments."""
    strict: bool | None = None
    kind: ToolKind = ToolKind.FUNCTION
    marker: CacheMarker | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTool:
    """A tool that the provider runs: nobody else can, so such a request stays in its own API."""

    owner: API
    kind: str
    value: Document


class ToolUse(StrEnum):
    """Whether a tool is to be called."""

    AUTO = "auto"
    NONE = "none"
    ANY = "any"
    """At least one, of whatever name (OpenAI's `required`)."""
    NAMED = "named"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """Which tools may or must be called."""

    use: ToolUse | None = None
    """None where only `parallel` was said."""
    names: tuple[str, ...] = ()
    """For NAMED the one, for AUTO and ANY the allowed ones; empty: all."""
    parallel: bool | None = None
    """May several be called at once? None: as the API has it."""
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONOutput:
    """The answer's text is to be JSON; by a schema if there is one."""

    schema: Document | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn; numbers as they came."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How much a model is to think before it answers. Said as effort or as a budget, seldom as both."""

    effort: str | None = None
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`."""
    budget_tokens: int | None = None
    """At most so many tokens; 0: not at all; -1: as the model sees fit."""
    adaptive: bool | None = None
    """The model decides (Anthropic's `adaptive`)."""
    visible: bool | None = None
    """Show the thoughts, or a summary of them."""
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprobs:
    """Log probabilities are wanted; `top` alternatives each."""

    wanted: bool | None = None
    top: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A request to generate."""

    api: API
    """The language that it came in."""
    model: str
    stream: bool
    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()
    """Instructions that stand beside the messages (Anthropic, Gemini, Responses)."""
    tools: tuple[Tool | ServerTool, ...] = ()
    tool_choice: ToolChoice | None = None
    output: JSONOutput | None = None
    max_output_tokens: int | None = None
    """Of one choice."""
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    choices: int | None = None
    reasoning: Reasoning | None = None
    logprobs: Logprobs | None = None
    user: str | None = None
    """An opaque id of the end user."""
    metadata: Document | None = None
    extra: Document = NOTHING
    harmless: frozenset[str] = frozenset()
    """Names, as `foreign.py` makes them, of what may be in any `extra` and can be left out without changing the answer.
    Its own language knows them, so its decoder gives them along."""

    def tool_name(self, call_id: str) -> str | None:
        """The name of the tool that was called under this id."""
        for turn in self.turns:
            for part in turn.parts:
                if isinstance(part, ToolCall) and part.id == call_id:
                    return part.name
        return None
