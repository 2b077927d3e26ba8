"""One document or stream of one language brought to another, and what became of it: for tests over all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.translation.events import Event
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.registry import GENERATING, translator
from tests.integration.recorded_exchanges import Exchange
from tests.unit.formats.streams import call_of

MODELS: Final[Mapping[API, str]] = {
    API.OPENAI_CHAT: "gpt-5",
    API.OPENAI_RESPONSES: "gpt-5",
    API.ANTHROPIC_MESSAGES: "claude-sonnet-4-5",
    API.GEMINI: "gemini-3-flash-preview",
}
PATHS: Final[Mapping[API, str]] = {
    API.OPENAI_CHAT: "/v1/chat/completions",
    API.OPENAI_RESPONSES: "/v1/responses",
    API.ANTHROPIC_MESSAGES: "/v1/messages",
    API.GEMINI: "/v1beta/models/gemini-3-flash-preview:streamGenerateContent?alt=sse",
}
STREAM_REQUESTS: Final[Mapping[API, Mapping[str, Any]]] = {
    API.OPENAI_CHAT: {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}},
    API.OPENAI_RESPONSES: {"model": "m", "input": "Hi", "stream": True},
    API.ANTHROPIC_MESSAGES: {"model": "m", "max_tokens": 9, "messages": [], "stream": True},
    API.GEMINI: {"contents": []},
}
"""The smallest request for a stream: what an application sent whose language the stream is written in."""
MAX_FRAME_BYTES: Final = 1 << 22
WHERE: Final = "$where"
"""In an outcome: path, query and headers of a request, which say something, too."""


def pairs() -> list[tuple[API, API]]:
    """Every language with every other."""
    return [(source, target) for source in GENERATING for target in GENERATING if source is not target]


class Fate(StrEnum):
    """What became of a document."""

    CARRIED = "carried"
    REFUSED = "refused"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a document, and everything that was told of it."""

    fate: Fate
    reason: str = ""
    losses: tuple[str, ...] = ()
    written: bytes = b""
    """A stream, or a document as JSON."""

    @property
    def document(self) -> dict[str, Any]:
        """A document as it was written."""
        parsed: dict[str, Any] = orjson.loads(self.written)
        parsed.pop(WHERE, None)
        return parsed


def request(call: Call, document: Any, target: API) -> Outcome:
    """A request, for a provider of `target`."""

    def write(losses: Losses) -> bytes:
        conversation = translator(call.api).decode_request(call, document)
        encoded = translator(target).encode_request(conversation, model=MODELS[target], losses=losses)
        return orjson.dumps({**encoded.document, WHERE: [encoded.path, encoded.query, *encoded.headers]})

    return _outcome(write)


def answer(source: API, document: Any, target: API) -> Outcome:
    """A whole answer, for an application of `target`."""
    return _outcome(
        lambda losses: orjson.dumps(
            translator(target).encode_answer(translator(source).decode_answer(document), losses=losses)
        )
    )


def stream(source: API, given: bytes, target: API) -> Outcome:
    """A whole stream, for an application of `target`."""

    def write(losses: Losses) -> bytes:
        asked = translator(target).decode_request(call_of(PATHS[target]), STREAM_REQUESTS[target])
        return translator(target).stream_encoder(asked, losses=losses).encode(events(source, given))

    return _outcome(write)


def events(api: API, given: bytes) -> list[Event]:
    """Everything that a stream says."""
    decoder = translator(api).stream_decoder(max_frame_bytes=MAX_FRAME_BYTES)
    return [*decoder.feed(given), *decoder.finish()]


def _outcome(write: Callable[[Losses], bytes]) -> Outcome:
    losses = Losses()
    try:
        written = write(losses)
    except Undecodable as error:
        return Outcome(Fate.UNDECODABLE, str(error))
    except Untranslatable as error:
        return Outcome(Fate.REFUSED, error.what)
    return Outcome(Fate.CARRIED, losses=tuple(losses.names), written=written)


def recorded_request(exchange: Exchange, target: API) -> Outcome:
    """The request of an exchange."""
    return request(call_of(exchange.path), exchange.request, target)


def recorded_answer(source: API, exchange: Exchange, target: API) -> Outcome:
    """The answer of an exchange, plain or streamed."""
    if exchange.is_stream:
        return stream(source, exchange.response, target)
    return answer(source, orjson.loads(exchange.response), target)


# --- leaves

Path = tuple[str | int, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every string, number and truth value in a document, and where it is. A `null` says nothing."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, (*path, name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from leaves(member, (*path, number))
    elif value is not None:
        yield path, value


def pattern(path: Path) -> str:
    """A path for all members of the same lists."""
    return ".".join("[]" if isinstance(step, int) else step for step in path).replace(".[]", "[]")


MARKER: Final = "MaRkEr"


def with_another(document: Any, path: Path) -> Iterator[Any]:
    """The document with other values in that place: a leaf may be carried coarsely. Shares what is unchanged."""
    leaf = _at(document, path)
    others: list[Any] = [leaf + 1, leaf * 100 + 7000] if _is_number(leaf) else []
    if isinstance(leaf, str):
        others = [leaf + MARKER]
    elif isinstance(leaf, bool):
        others = [not leaf]
    for other in others:
        yield _with(document, path, other)


def without(document: Any, path: Path) -> Any:
    """The document without that leaf."""
    return _with(document, path, _ABSENT)


_ABSENT: Final = object()


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def _with(document: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    copied = dict(document) if isinstance(document, dict) else list(document)
    step = path[0]
    made = _with(document[step], path[1:], value)
    if made is _ABSENT:
        del copied[step]  # type: ignore[arg-type]
    else:
        copied[step] = made  # type: ignore[index]
    return copied
