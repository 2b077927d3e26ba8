"""What every wire language answers for: reading a request, an answer, a stream; writing an error.

A format never does I/O. Bytes that the application sent and bytes that a provider sent are relayed as they are;
a format only says what they mean and where, if anywhere, other bytes must be put in (`Splice`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llm_sidecar.contract.names import API, RequestType


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call in disjoint buckets; `None` is "not told", which is not zero.

    `reasoning_tokens` is the one exception: a part of `output_tokens`, told apart for reports.
    """

    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def told_input_tokens(self) -> int | None:
        """All input of all kinds; None where none of it was told."""
        if self.input_tokens is None and self.cache_read_tokens is None and self.cache_write_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)

    @property
    def total_tokens(self) -> int:
        """All tokens of all buckets that were told."""
        return (
            (self.input_tokens or 0)
            + (self.cache_read_tokens or 0)
            + (self.cache_write_tokens or 0)
            + (self.output_tokens or 0)
        )


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, as told by method, path, query and headers alone (see `recognise.py`).

    `path` is what follows the prefix that this SDK puts into its base URL: `/chat/completions` for OpenAI
    (whose base URL ends in `/v1`), `/v1/messages` for Anthropic, `/v1beta/models/M:generateContent` for Gemini.
    """

    api: API
    type: RequestType
    path: str
    model: str | None = None
    """Only where the path names it (Gemini)."""
    stream: bool | None = None
    """Only where the path tells it (Gemini)."""
    stream_is_json_array: bool = False
    """Gemini's `streamGenerateContent` without `alt=sse`."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """The facts of a request that routing, quota and cache need. The body itself is kept as it came."""

    call: Call
    body: bytes
    document: Mapping[str, Any]
    model: str
    stream: bool
    max_output_tokens: int | None
    """The request's own cap on generated tokens, over all the choices that it asks for; 0 where nothing is generated
    (embeddings, token counts)."""
    input_tokens_estimate: int
    """From sizes alone, never from a tokenizer: meant to be a little too high. 0 for token counts, which cost none."""
    stateful: bool
    """Refers to, or leaves behind, something that lives at one provider (conversations, stored responses, files)."""
    deterministic: bool
    """Says temperature 0, asks for one choice and for no server-side tool: the same request means the same answer."""
    repeatable: bool = True
    """Asks for one choice and for no server-side tool: an earlier answer can stand for a new one."""


@dataclass(frozen=True, slots=True)
class Splice:
    """Replace `body[start:end]` by `replacement`. Every other byte stays."""

    start: int
    end: int
    replacement: bytes


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error that a provider sent inside a stream which had begun with status 200."""

    status: int
    code: str
    message: str


class StreamObserver(Protocol):
    """Follows one provider stream. Create one per attempt; not safe to share between requests.

    `feed` takes bytes as the network delivers them, split anywhere, and returns what may be relayed: whole
    frames only, so that a stream which dies in the middle of a frame can still be ended by a proper error event.
    """

    @property
    def committed(self) -> bool:
        """The first content (text, tool, thinking or refusal delta, or the terminal event) has been seen."""
        ...

    @property
    def ended(self) -> bool:
        """The terminal marker of this API has been seen."""
        ...

    @property
    def error(self) -> StreamError | None:
        """The last error event seen. An error before the first content does not commit: another provider may answer."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The latest token usage that the stream told."""
        ...

    @property
    def content_bytes(self) -> int:
        """Size of the generated content seen so far, for an estimate when usage is never told."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those to relay now. Raises `FrameTooLarge`."""
        ...

    def finish(self) -> bytes:
        """The provider closed the stream: return what is still to relay (an unfinished frame is dropped)."""
        ...

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """What to send behind the bytes returned so far so that the SDK raises instead of taking them for complete.

        Like `Format.stream_error`, but fitted to this very stream: it closes a JSON array validly, goes on with the
        sequence numbers, and is empty where nothing can be added any more. Call it after `finish`.
        """
        ...


class Format(Protocol):
    """One wire language. Implementations are stateless; one instance serves all requests."""

    api: API

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request. Raises `MalformedRequest` with a message for the person who wrote the application."""
        ...

    def splices(self, request: ParsedRequest, *, model: str | None, ask_for_usage: bool) -> list[Splice]:
        """What must change before the body goes to a provider, in ascending order; mostly nothing.

        `model`: the name to send, or None to leave it. `ask_for_usage`: make the stream tell its usage, where
        this API only does so on request.
        """
        ...

    def upstream_path(self, call: Call, model: str | None) -> str:
        """The path (without query) to append to the provider's base URL; `model` replaces the one in the path."""
        ...

    def usage(self, call: Call, answer: bytes) -> Usage | None:
        """Token usage of a complete plain answer; None where it has none or is not understood."""
        ...

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True for a plain answer that says something and ended normally: no error, no refusal, no length limit."""
        ...

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Follow a provider's stream; `hide_usage` drops the usage frame that only we asked for."""
        ...

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """Our own error, in the shape of this API."""
        ...

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """An event that ends an already begun stream so that the SDK raises instead of taking it for complete."""
        ...


class MalformedRequest(Exception):
    """The body cannot be understood. The message is for the application's author and quotes nothing of the body."""


class FrameTooLarge(Exception):
    """A single stream frame is larger than the bound: relaying it would take unbounded memory."""


class FrameUnreadable(Exception):
    """A stream frame is not what its language says. The message quotes nothing of it."""

    def __init__(self, message: str, *, readable: bytes = b"") -> None:
        super().__init__(message)
        self.readable = readable
        """What came with it, and before it, and may still be relayed."""
