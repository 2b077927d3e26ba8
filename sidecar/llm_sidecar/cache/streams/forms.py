"""Which language assembles and replays how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import orjson

from llm_sidecar.cache.streams import anthropic_messages, gemini, openai_chat, openai_responses
from llm_sidecar.cache.streams.merging import Document, NotUnderstood, an_object
from llm_sidecar.contract.names import API
from llm_sidecar.formats.sse import DONE, each_frame

if TYPE_CHECKING:
    from llm_sidecar.formats.base import Call, ParsedRequest

_ASSEMBLERS: Final[Mapping[API, Callable[[Iterable[Document]], Document]]] = MappingProxyType(
    {
        API.OPENAI_CHAT: openai_chat.assemble,
        API.OPENAI_RESPONSES: openai_responses.assemble,
        API.ANTHROPIC_MESSAGES: anthropic_messages.assemble,
        API.GEMINI: gemini.assemble,
    }
)
_REPLAYERS: Final[Mapping[API, Callable[[Document, ParsedRequest], bytes]]] = MappingProxyType(
    {
        API.OPENAI_CHAT: openai_chat.replay,
        API.OPENAI_RESPONSES: openai_responses.replay,
        API.ANTHROPIC_MESSAGES: anthropic_messages.replay,
        API.GEMINI: gemini.replay,
    }
)
_UNREADABLE: Final = (NotUnderstood, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What comes is anybody's JSON: of any other shape than the one expected, it is not understood."""
LONG_NUMBER: Final = re.compile(rb"[:,\[]\s*+-?+[0-9]{19}")
"""Beyond 64 bits the parser rounds: what holds such a number is neither keyed nor rebuilt."""


def assembled(call: Call, stream: bytes) -> bytes | None:
    """The plain answer that a complete stream in the language of `call` is; None where not all of it is understood."""
    assemble = _ASSEMBLERS.get(call.api)
    if assemble is None or LONG_NUMBER.search(stream):
        return None
    try:
        return orjson.dumps(assemble(_documents(call, stream)))
    except _UNREADABLE:
        return None


def _documents(call: Call, stream: bytes) -> list[Document]:
    if call.stream_is_json_array:
        return [an_object(element, "an element") for element in orjson.loads(stream)]
    frames = (data for _, data in each_frame(stream) if data and data != DONE)
    return [an_object(orjson.loads(data), "a frame") for data in frames]


def replayed(request: ParsedRequest, answer: bytes) -> bytes | None:
    """A stored plain answer as the stream that was asked for; None where that cannot be done without a loss."""
    replay = _REPLAYERS.get(request.call.api)
    if replay is None or LONG_NUMBER.search(answer):
        return None
    try:
        return replay(an_object(orjson.loads(answer), "the answer"), request)
    except _UNREADABLE:
        return None
