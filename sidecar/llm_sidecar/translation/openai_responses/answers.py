"""Whole answers of the Responses API: read into the middle, written again as they were, or made of another's answer.

An answer tells its request again. That echo is kept under names that begin with `$`: for another language it is not
worth a word. An answer made of another provider's has an id that is marked as ours (see `marks.py`), thoughts as a
reasoning summary with their provider's signature sealed in, and what its type demands and nobody told: no tools, tool
choice `auto`, parallel calls allowed; 0 for buckets of usage that were not told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.fields import text
from llm_sidecar.formats.openai_usage import responses_usage
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.conversation import Turn
from llm_sidecar.translation.foreign import drop_answer_extras
from llm_sidecar.translation.losses import Losses, Undecodable
from llm_sidecar.translation.openai_responses import marks
from llm_sidecar.translation.openai_responses.content import said
from llm_sidecar.translation.openai_responses.items import decode_item, encode_item
from llm_sidecar.translation.openai_responses.output import OutputItems
from llm_sidecar.translation.parts import NOTHING, Part, Refusal, Text, ToolCall
from llm_sidecar.translation.reading import Fields

_ECHO: Final = frozenset(
    {
        "access_programs",
        "background",
        "billing",
        "completed_at",
        "context_management",
        "conversation",
        "error",
        "frequency_penalty",
        "incomplete_details",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "object",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "status",
        "store",
        "temperature",
        "text",
        "tool_choice",
        "tool_usage",
        "tools",
        "top_logprobs",
        "top_p",
        "total_tokens",
        "truncation",
        "user",
    }
)
_COMPLETE: Final = "completed"
_INCOMPLETE: Final[Mapping[str, Finish]] = MappingProxyType(
    {"max_output_tokens": Finish.LENGTH, "content_filter": Finish.SAFETY}
)
_NO_ANSWER: Final = frozenset({"failed", "cancelled"})
_UNTOLD: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }
)
_REASONS: Final[Mapping[Finish, str | None]] = MappingProxyType(
    {
        Finish.LENGTH: "max_output_tokens",
        Finish.CONTEXT_WINDOW: "max_output_tokens",
        Finish.SAFETY: "content_filter",
        Finish.PAUSE: None,
        Finish.MALFORMED_CALL: None,
        Finish.OTHER: None,
    }
)
"""Why an answer is incomplete; a finish that is not here is complete."""


def decode_answer(document: Mapping[str, Any]) -> Answer:
    """Raises `Undecodable`, also for an answer that failed: it holds an error, for others to map."""
    fields = Fields(document, "the answer")
    output = fields.array("output")
    if output is None:
        raise Undecodable("the answer.output is missing")
    if text(document, "status") in _NO_ANSWER:
        raise Undecodable("the answer.status tells of a failure")
    usage = fields.object("usage")
    identity = fields.text("id") or ""
    model = fields.text("model") or ""
    created = fields.number("created_at")
    extra = echo_marked(fields.rest)
    return Answer(
        api=API.OPENAI_RESPONSES,
        id=identity,
        model=model,
        created_seconds=None if created is None else int(created),
        choices=(_choice(document, output),),
        usage=told_usage(usage),
        extra={**extra, "$created_at": created} if isinstance(created, float) else extra,
    )


def told_usage(usage: Mapping[str, Any] | None) -> ToldUsage | None:
    """The usage object of an answer."""
    return None if usage is None else ToldUsage(buckets=responses_usage(usage), extra=usage)


def echo_marked(rest: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's further fields as an `extra`."""
    return {f"${name}" if name in _ECHO else name: value for name, value in rest.items()}


def finish_of(document: Mapping[str, Any], *, calls: bool, refuses: bool) -> Finish | None:
    """Why the model stopped, which called a tool or refused on its way; None while it has not."""
    status = document.get("status")
    if status == "incomplete":
        details = document.get("incomplete_details")
        reason = text(details, "reason") if isinstance(details, dict) else None
        return _INCOMPLETE.get(reason or "", Finish.OTHER)
    if status in ("queued", "in_progress"):
        return None
    if calls:
        return Finish.TOOL_CALLS
    return Finish.REFUSAL if refuses else Finish.STOP


def _choice(document: Mapping[str, Any], output: list[Any]) -> Choice:
    turns = [decode_item(item, f"output[{index}]") for index, item in enumerate(output)]
    parts = tuple(part for turn in turns for part in turn.parts)
    extra: dict[str, Any] = {"$items": turns}
    for turn in turns:
        extra |= {name: value for name, value in said(turn.extra).items() if name != "phase"}
    finish = finish_of(
        document,
        calls=any(isinstance(part, ToolCall) for part in parts),
        refuses=any(isinstance(part, Refusal) for part in parts),
    )
    return Choice(parts=parts, finish=finish, logprobs=_logprobs(parts), extra=extra)


def _logprobs(parts: Iterable[Part]) -> Mapping[str, Any] | None:
    """Of all text, in the form of OpenAI's chat, which has the same entries."""
    told = [entry for part in parts if isinstance(part, Text) for entry in part.extra.get("$logprobs") or ()]
    return {"content": told} if told else None


def encode_answer(answer: Answer, losses: Losses) -> Mapping[str, Any]:
    """The document. Output of another provider that this API has no item for is left out and told."""
    return _own(answer, losses) if answer.api is API.OPENAI_RESPONSES else _foreign(answer, losses)


def _own(answer: Answer, losses: Losses) -> Mapping[str, Any]:
    choice = answer.choices[0]
    document: dict[str, Any] = {"id": answer.id, "model": answer.model, "created_at": answer.created_seconds}
    document |= {name.removeprefix("$"): value for name, value in answer.extra.items()}
    if answer.usage is not None:
        document["usage"] = answer.usage.extra
    position = 0
    output = []
    for told in choice.extra["$items"]:
        end = position + len(told.parts)
        turn = Turn(role=told.role, parts=choice.parts[position:end], extra=told.extra)
        position = end
        output.append(encode_item(turn, losses))
    document["output"] = [item for item in output if item is not None]
    return document


def _foreign(answer: Answer, losses: Losses) -> Mapping[str, Any]:
    drop_answer_extras(answer, losses)
    if len(answer.choices) > 1:
        losses.drop("choices")
    choice = answer.choices[0] if answer.choices else Choice(finish=Finish.SAFETY)
    if choice.stop_sequence is not None:
        losses.drop("stop_sequence")
    identity = marks.response_id(answer.id)
    items = OutputItems(identity, losses)
    for part in choice.parts:
        items.add(part)
    items.take_logprobs(choice.logprobs)
    return response_document(
        identity=identity,
        model=answer.model,
        created_seconds=answer.created_seconds,
        output=items.finished(),
        finish=choice.finish or Finish.STOP,
        refused=any(isinstance(part, Refusal) for part in choice.parts),
        usage=answer.usage,
    )


def response_document(
    *,
    identity: str,
    model: str,
    created_seconds: int | None,
    output: list[dict[str, Any]],
    finish: Finish | None,
    refused: bool,
    usage: ToldUsage | None,
    settings: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """A whole response. `finish`: None while it grows; `settings`: what the request said, if that is known."""
    created = int(time.time()) if created_seconds is None else created_seconds
    document: dict[str, Any] = {"id": identity, "object": "response", "created_at": created, "status": "in_progress"}
    document |= {**_UNTOLD, **settings}
    document |= {"model": model, "output": output}
    if finish is None:
        return document
    reason = incomplete_reason(finish, refused=refused)
    document["status"] = _COMPLETE if reason == _COMPLETE else "incomplete"
    if reason not in (_COMPLETE, None):
        document["incomplete_details"] = {"reason": reason}
    if usage is not None:
        document["usage"] = encode_usage(usage.buckets)
    return document


def incomplete_reason(finish: Finish, *, refused: bool) -> str | None:
    """OpenAI's word for it; None where it has none; `completed` where nothing is missing."""
    if finish is Finish.REFUSAL:
        # Told by a part of its own the refusal is an answer; cut off by its provider's filter it is none.
        return _COMPLETE if refused else "content_filter"
    return _REASONS.get(finish, _COMPLETE)


def encode_usage(usage: Usage) -> dict[str, Any]:
    """As OpenAI counts: all input together, and what of it was cached."""
    told_input, told_output = usage.told_input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": told_input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": told_output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": told_input + told_output,
    }
