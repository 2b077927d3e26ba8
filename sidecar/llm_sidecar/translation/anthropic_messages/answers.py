"""Whole answers. `extra` of the answer holds all beside its content, such as `container` and `stop_details`.

Of another language's answer, Anthropic's applications get one choice, its text, calls and thinking; a thought or call
that its own provider has to recognise is marked (`signatures.py`). Left out and named: further choices, log
probabilities, what only the provider knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation import foreign
from llm_sidecar.translation.answer import Answer, Choice, Finish
from llm_sidecar.translation.anthropic_messages import blocks, signatures, stops, usage
from llm_sidecar.translation.anthropic_messages.blocks import OWN, needed
from llm_sidecar.translation.anthropic_messages.turns import checked_id
from llm_sidecar.translation.anthropic_messages.written_blocks import BlockWriter
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.parts import NOTHING, Media, Native, Part, Refusal, Thinking, ToolCall, ToolKind
from llm_sidecar.translation.reading import Fields

_REASON: Final = "stop_reason"
WITHOUT_A_CALL: Final = Finish.LENGTH
"""How an answer ends of which a call had to be left out: it must not look whole."""


def decode(document: Mapping[str, Any]) -> Answer:
    """Read an answer. Raises `Undecodable`."""
    fields = Fields(document, "the answer")
    if fields.text("type") != "message":
        raise Undecodable("the answer's type must be message")
    fields.take("role")
    told_usage = fields.object("usage")
    reason = fields.text(_REASON)
    finish = None if reason is None else stops.decode(reason)
    choice = Choice(
        parts=blocks.decode(needed(fields.array("content"), "content"), "content"),
        finish=finish,
        stop_sequence=fields.text("stop_sequence"),
        extra={_REASON: reason} if finish is Finish.OTHER else NOTHING,
    )
    return Answer(
        api=OWN,
        id=needed(fields.text("id"), "id"),
        model=needed(fields.text("model"), "model"),
        choices=(choice,),
        usage=None if told_usage is None else usage.decode(told_usage),
        extra=fields.rest,
    )


def encode(answer: Answer, *, losses: Losses) -> dict[str, Any]:
    """Write an answer. It is paid for: what cannot be said is left out and told, and nothing refused."""
    head = {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model}
    return head | (_own(answer, losses) if answer.api is OWN else _foreign(answer, losses))


def _own(answer: Answer, losses: Losses) -> dict[str, Any]:
    choice = answer.choices[0]
    written: dict[str, Any] = {"content": BlockWriter(is_own=True, losses=losses).blocks(choice.parts)}
    if choice.finish is not None:
        written |= stops.encode_own(choice.finish, stop_sequence=choice.stop_sequence)
    if answer.usage is not None:
        written["usage"] = answer.usage.extra
    return {**written, **choice.extra, **answer.extra}


def _foreign(answer: Answer, losses: Losses) -> dict[str, Any]:
    foreign.drop_answer_extras(answer, losses)
    if len(answer.choices) > 1:
        losses.drop("choices")
    choice = answer.choices[0] if answer.choices else Choice()
    if choice.logprobs is not None:
        losses.drop("logprobs")
    writer = BlockWriter(is_own=False, losses=losses)
    content = [
        block
        for index, part in enumerate(choice.parts)
        for block in shown(part, index, answer_id=answer.id, api=answer.api, writer=writer)
    ]
    ending: dict[str, Any] = dict(stops.NOT_YET)
    if choice.finish is not None:
        finish = Finish.REFUSAL if any(isinstance(part, Refusal) for part in choice.parts) else choice.finish
        calls = [part for part in choice.parts if isinstance(part, ToolCall)]
        ending = stops.encode(
            finish if all(is_writable(call) for call in calls) else WITHOUT_A_CALL,
            has_calls=bool(calls),
            stop_sequence=choice.stop_sequence,
            losses=losses,
        )
    return {"content": content, **ending, "usage": usage.encode(answer.usage)}


def shown(part: Part, index: int, *, answer_id: str, api: API | None, writer: BlockWriter) -> list[dict[str, Any]]:
    """The blocks for one part of another language's answer."""
    if isinstance(part, Media):
        writer.losses.drop(part.kind.value)
        return []
    if isinstance(part, ToolCall) and not is_writable(part):
        writer.losses.drop(foreign.CALL)
        return []
    if isinstance(part, Thinking) and part.owner is not OWN:
        return [thought(part)] if part.text or part.signature else []
    if isinstance(part, Native):
        # The answer is given: what Anthropic has no block for can only be left out.
        writer.losses.drop(part.kind)
        return []
    before: list[dict[str, Any]] = []
    if isinstance(part, ToolCall):
        if part.signature is not None:
            sign = signatures.marked(api, part.signature, signs_call=True)
            before = [{"type": "thinking", "thinking": "", "signature": sign}]
        part = replace(part, id=checked_id(part.id) or made_up_id(answer_id, index), signature=None)
    block = writer.block(part)
    return before if block is None else [*before, block]


def is_writable(call: ToolCall) -> bool:
    """Can a block say this call? It knows no input but objects."""
    if call.kind is ToolKind.CUSTOM:
        return False
    try:
        call.arguments_object()
    except Untranslatable:
        return False
    return True


def thought(part: Thinking) -> dict[str, Any]:
    """Another provider's thinking, to be read; its signature goes back to its owner alone."""
    sign = signatures.marked(part.owner, part.signature)
    return {"type": "thinking", "thinking": part.text, "signature": sign}


def made_up_id(answer_id: str, index: int) -> str:
    """An id for a call that has none. Ids must differ over a conversation, so the answer's is in it."""
    return checked_id(f"call_{answer_id}_{index}")
