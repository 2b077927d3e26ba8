"""Gemini's whole answers, read into the middle and written from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.gemini import read_usage
from llm_sidecar.translation.answer import Answer, Choice, Finish, ToldUsage
from llm_sidecar.translation.foreign import drop_answer_extras
from llm_sidecar.translation.gemini.models import THIRD
from llm_sidecar.translation.gemini.part_encoding import AnswerPartEncoder
from llm_sidecar.translation.gemini.parts import AnswerIds, decode_part
from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.parts import NOTHING, Part, Refusal, ToolCall, ToolKind
from llm_sidecar.translation.spelling import SpelledFields, SpelledObject

_FINISHES: Final[Mapping[str, Finish]] = {
    "STOP": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    "MALFORMED_FUNCTION_CALL": Finish.MALFORMED_CALL,
    "UNEXPECTED_TOOL_CALL": Finish.MALFORMED_CALL,
    "TOO_MANY_TOOL_CALLS": Finish.MALFORMED_CALL,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
        ),
        Finish.SAFETY,
    ),
}
_WORDS: Final[Mapping[Finish, str]] = {
    Finish.STOP: "STOP",
    Finish.STOP_SEQUENCE: "STOP",
    Finish.TOOL_CALLS: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.CONTEXT_WINDOW: "MAX_TOKENS",
    Finish.SAFETY: "SAFETY",
    Finish.REFUSAL: "SAFETY",
    Finish.MALFORMED_CALL: "MALFORMED_FUNCTION_CALL",
    Finish.PAUSE: "OTHER",
    Finish.OTHER: "OTHER",
}

FINISH: Final = "$finish"
"""The reason's word, where it is not the usual one for what it means."""
_INDEX: Final = "$index"
_ROLE: Final = "$role"
BLOCKED: Final = "$blocked"
"""The choice stands for a prompt that was blocked: there was no candidate."""


def decode_answer(document: Mapping[str, Any]) -> Answer:
    """See `Translator.decode_answer`."""
    fields = SpelledFields(document, "answer")
    answer_id, model = fields.text("responseId"), fields.text("modelVersion")
    candidates = fields.repeated("candidates")
    choices = tuple(_choice(candidate, position, answer_id or "") for position, candidate in enumerate(candidates))
    if not choices and is_blocked(document):
        choices = (Choice(finish=Finish.SAFETY, extra={BLOCKED: True}),)
    return Answer(
        api=API.GEMINI,
        id=answer_id or "",
        model=model or "",
        choices=choices,
        usage=told_usage(fields.object("usageMetadata")),
        extra=fields.extra,
    )


def is_blocked(document: Mapping[str, Any]) -> bool:
    """The prompt was blocked."""
    feedback = document.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def told_usage(usage: dict[str, Any] | None) -> ToldUsage | None:
    """What `usageMetadata` tells."""
    return None if usage is None else ToldUsage(buckets=read_usage(usage), extra=usage)


def decode_finish(word: str, *, calls_tools: bool) -> Finish:
    """What a `finishReason` means; for one that calls tools, this API has no word of its own."""
    if word == "STOP" and calls_tools:
        return Finish.TOOL_CALLS
    return _FINISHES.get(word, Finish.OTHER)


def usual_word(finish: Finish) -> str:
    """The `finishReason` for it."""
    return _WORDS[finish]


def _choice(candidate: Any, position: int, answer_id: str) -> Choice:
    where = f"candidates[{position}]"
    fields = SpelledFields(candidate, where)
    index = fields.whole("index")
    content = fields.container("content")
    role = content.text("role")
    ids = AnswerIds(answer_id if not position else f"{answer_id}_{position}")
    parts = tuple(
        decode_part(part, f"{where}.content.parts[{number}]", ids)
        for number, part in enumerate(content.repeated("parts"))
    )
    word = fields.text("finishReason")
    finish = (
        None if word is None else decode_finish(word, calls_tools=any(isinstance(part, ToolCall) for part in parts))
    )
    fields.keep(_INDEX, None if index is None else True)
    fields.keep(_ROLE, role)
    fields.keep(FINISH, word if finish is not None and usual_word(finish) != word else None)
    return Choice(
        index=position if index is None else index,
        parts=parts,
        finish=finish,
        logprobs=fields.object("logprobsResult"),
        extra=fields.extra,
    )


def encode_answer(answer: Answer, *, losses: Losses) -> dict[str, Any]:
    """See `Translator.encode_answer`."""
    own = answer.api is API.GEMINI
    if not own:
        drop_answer_extras(answer, losses)
    document = SpelledObject(answer.extra if own else NOTHING)
    parts = AnswerPartEncoder(own=own, losses=losses, generation=THIRD)
    document.put_array(
        "candidates",
        [_own_candidate(choice, parts) for choice in answer.choices if BLOCKED not in choice.extra]
        if own
        else [_candidate(choice, parts) for choice in answer.choices],
    )
    document.put("usageMetadata", None if answer.usage is None else encode_usage(answer.usage, own=own))
    document.put("modelVersion", answer.model or None)
    document.put("responseId", answer.id or None)
    return document.finish()


def encode_usage(usage: ToldUsage, *, own: bool) -> dict[str, Any]:
    """`usageMetadata`: the prompt includes the cached tokens, the candidates exclude the thoughts."""
    if own:
        return dict(usage.extra)
    buckets = usage.buckets
    told: dict[str, int | None] = {
        "promptTokenCount": buckets.told_input_tokens,
        "cachedContentTokenCount": buckets.cache_read_tokens or None,
        "candidatesTokenCount": _without_thoughts(buckets),
        "thoughtsTokenCount": buckets.reasoning_tokens or None,
        "totalTokenCount": buckets.total_tokens,
    }
    return {name: value for name, value in told.items() if value is not None}


def _without_thoughts(buckets: Usage) -> int | None:
    if buckets.output_tokens is None:
        return None
    return max(0, buckets.output_tokens - (buckets.reasoning_tokens or 0))


def _own_candidate(choice: Choice, parts: AnswerPartEncoder) -> dict[str, Any]:
    document = SpelledObject(choice.extra)
    document.put_array("content.parts", [each for part in choice.parts if (each := parts.encode(part)) is not None])
    document.put("content.role", choice.extra.get(_ROLE))
    if choice.finish is not None:
        document.put("finishReason", choice.extra.get(FINISH, usual_word(choice.finish)))
    document.put("index", choice.index if _INDEX in choice.extra else None)
    document.put("logprobsResult", choice.logprobs)
    return document.finish("content")


def _candidate(choice: Choice, parts: AnswerPartEncoder) -> dict[str, Any]:
    content: dict[str, Any] = {"role": "model"}
    if encoded := [each for part in choice.parts if (each := parts.encode(part)) is not None]:
        content["parts"] = encoded
    if choice.logprobs is not None:
        parts.losses.drop("logprobs")
    return {
        "content": content,
        "finishReason": finish_word(choice.finish, choice.stop_sequence, choice.parts, parts.losses),
        "index": choice.index,
    }


def finish_word(finish: Finish | None, stop_sequence: str | None, parts: tuple[Part, ...], losses: Losses) -> str:
    """The `finishReason` of another API's answer."""
    if stop_sequence is not None:
        losses.drop("stop_sequence")
    if any(isinstance(part, ToolCall) and not is_writable(part) for part in parts):
        return usual_word(Finish.MALFORMED_CALL)
    if any(isinstance(part, Refusal) for part in parts):
        return usual_word(Finish.REFUSAL)
    return usual_word(finish or Finish.OTHER)


def is_writable(call: ToolCall) -> bool:
    """Can this API say the call? It knows no arguments but objects."""
    if call.kind is ToolKind.CUSTOM:
        return False
    try:
        call.arguments_object()
    except Untranslatable:
        return False
    return True
