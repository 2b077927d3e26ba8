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
from llm_sidecar.formats.sse import DONE, each_data

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
_LONG_NUMBER: Final = re.compile(rb"[:,\[]\s*+-?+[0-9]{19}")
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")


def has_long_number(text: bytes) -> bool:
    """True where JSON may hold a number beyond 64 bits, which the parser rounds: it is neither keyed nor rebuilt."""
    # That there are so many digits in a row at all is told in a fifth of the time.
    return b"0" * 19 in text.translate(_DIGITS_AS_ZEROS) and _LONG_NUMBER.search(text) is not None


def assembled(call: Call, stream: bytes) -> bytes | None:
    """The plain answer that a complete stream in the language of `call` is; None where not all of it is understood."""
    assemble = _ASSEMBLERS.get(call.api)
    if assemble is None or has_long_number(stream):
        return None
    try:
        return orjson.dumps(assemble(_documents(call, stream)))
    except _UNREADABLE:
        return None


def _documents(call: Call, stream: bytes) -> list[Document]:
    if call.stream_is_json_array:
        return [an_object(element, "an element") for element in orjson.loads(stream)]
    documents = [orjson.loads(data) for data in each_data(stream) if data and data != DONE]
    if set(map(type, documents)) != {dict}:
        raise NotUnderstood("a frame is no object")
    return documents


def replayed(request: ParsedRequest, answer: bytes) -> bytes | None:
    """A stored plain answer as the stream that was asked for; None where that cannot be done without a loss."""
    replay = _REPLAYERS.get(request.call.api)
    if replay is None or has_long_number(answer):
        return None
    try:
        return replay(an_object(orjson.loads(answer), "the answer"), request)
    except _UNREADABLE:
        return None
