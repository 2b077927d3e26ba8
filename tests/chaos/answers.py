"""What a client of each API takes for a complete answer, and for an error that it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from tests.integration.proxy.api_errors import error_of, last_error
from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_traffic import Call


class NoProperEnd(Exception):
    """Neither one complete answer nor one proper error. The message says what it is instead."""


def text_of(name: str, reply: Reply) -> str | None:
    """The whole text of a complete answer; None where it is not complete. Raises `NoProperEnd`."""
    plain = {"chat": _chat, "responses": _response, "messages": _message, "generate": _generated}
    if name in plain:
        return plain[name](reply.json())
    if name == "generate-array":
        return _generated_pieces(reply.json())
    events = [*_events(reply.body)]
    if name == "chat-stream":
        return _chat_stream(events)
    documents = [orjson.loads(event) for event in events]
    _check_language(name, documents)
    if name == "generate-stream":
        return _generated_pieces(documents)
    kinds = {"responses-stream": ("response.completed", _response_text), "messages-stream": ("message_stop", _delta)}
    terminal, piece = kinds[name]
    return _typed(documents, terminal, "".join(map(piece, documents)))


_WORDS: Final = {
    "chat-stream": ("object",),
    "responses-stream": ("sequence_number",),
    "messages-stream": ("type",),
    "generate-stream": ("candidates", "usageMetadata"),
}
"""One of these is in every frame that is no error."""


def _check_language(name: str, documents: Sequence[Any]) -> None:
    """Raise `NoProperEnd` at a frame of another API: every one of them must be in the application's own."""
    for document in documents:
        is_own = "error" in document or any(word in document for word in _WORDS[name])
        if not is_own or (name == "messages-stream" and document["type"].startswith("response.")):
            raise NoProperEnd(f"a frame of another API: {document!r:.300}")


def check_error(call: Call, reply: Reply) -> None:
    """Raise `NoProperEnd` where this is no error of the API that was called."""
    try:
        if reply.status == 200:
            last_error(call, reply)
        else:
            error_of(call, reply)
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        raise NoProperEnd(f"neither complete nor an error: {reply.status} {reply.body[-300:]!r}") from error


def _events(body: bytes) -> Iterator[bytes]:
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                yield line.removeprefix(b"data: ")


def _once(count: int, text: str, *, is_last: bool) -> str | None:
    if count > 1 or (count and not is_last):
        raise NoProperEnd("something follows the terminal marker")
    return text if count else None


def _chat(document: Any) -> str | None:
    (choice,) = document["choices"]
    return str(choice["message"]["content"]) if choice["finish_reason"] == "stop" else None


def _response(document: Any) -> str | None:
    texts = [part["text"] for item in document["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(texts) if document["status"] == "completed" else None


def _message(document: Any) -> str | None:
    texts = [block["text"] for block in document["content"] if block["type"] == "text"]
    return "".join(texts) if document["stop_reason"] == "end_turn" else None


def _generated(document: Any) -> str | None:
    return _generated_pieces([document])


def _chat_stream(events: Sequence[bytes]) -> str | None:
    chunks = [orjson.loads(event) for event in events if event != b"[DONE]"]
    _check_language("chat-stream", chunks)
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())]
    ends = events.count(b"[DONE]")
    return _once(ends, "".join(texts), is_last=bool(events) and events[-1] == b"[DONE]")


def _generated_pieces(documents: Sequence[Any]) -> str | None:
    candidates = [one for document in documents for one in document.get("candidates", ())]
    texts = [part.get("text", "") for one in candidates for part in one.get("content", {}).get("parts", ())]
    ends = sum("finishReason" in one for one in candidates)
    return _once(ends, "".join(texts), is_last=not any("error" in document for document in documents))


def _typed(documents: Sequence[Any], terminal: str, text: str) -> str | None:
    kinds = [document.get("type") for document in documents]
    return _once(kinds.count(terminal), text, is_last=bool(kinds) and kinds[-1] == terminal)


def _response_text(document: Any) -> str:
    return str(document["delta"]) if document.get("type") == "response.output_text.delta" else ""


def _delta(document: Any) -> str:
    return str(document.get("delta", {}).get("text", "")) if document.get("type") == "content_block_delta" else ""
