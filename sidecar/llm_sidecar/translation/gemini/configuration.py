"""`generationConfig` and `toolConfig`, read into the middle and written from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.translation.conversation import (
    Conversation,
    JSONOutput,
    Logprobs,
    Reasoning,
    Sampling,
    ToolChoice,
    ToolUse,
)
from llm_sidecar.translation.gemini.models import THIRD, generation, thinking_config
from llm_sidecar.translation.gemini.schema import to_json_schema
from llm_sidecar.translation.losses import Losses, Untranslatable
from llm_sidecar.translation.parts import NOTHING
from llm_sidecar.translation.spelling import SpelledFields, SpelledObject

CONTAINERS: Final = (
    "toolConfig",
    "toolConfig.functionCallingConfig",
    "generationConfig",
    "generationConfig.thinkingConfig",
)
_CONFIG: Final = "generationConfig"
_THINKING: Final = "generationConfig.thinkingConfig"
_CALLING: Final = "toolConfig.functionCallingConfig"

_MODE: Final = "$mode"
"""The mode's word, where it is not the usual one for what it means; None where it is left out."""
_LEVEL: Final = "$level"
"""The level's word, where it is not in capitals."""
_OWN_SCHEMA: Final = "$schema"
_MIME_TYPE: Final = "$mime_type"
"""That of the answer, where it is not the usual one; None where it is left out."""
_MODALITIES: Final = "$modalities"
"""The answer's, where they are text alone, which is usual anyhow."""

_JSON: Final = "application/json"
_MOST_STOP_SEQUENCES: Final = 5
_MOST_CHOICES: Final = 8
_MODES: Final = {
    "AUTO": ToolUse.AUTO,
    "MODE_UNSPECIFIED": ToolUse.AUTO,
    "VALIDATED": ToolUse.AUTO,
    "ANY": ToolUse.ANY,
    "NONE": ToolUse.NONE,
}
_EFFORTS: Final = frozenset({"minimal", "low", "medium", "high", "xhigh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `generationConfig` says, as fields of `Conversation`."""

    output: JSONOutput | None
    max_output_tokens: int | None
    stop: tuple[str, ...]
    sampling: Sampling
    choices: int | None
    reasoning: Reasoning | None
    logprobs: Logprobs | None


def decode_tool_choice(config: SpelledFields) -> ToolChoice | None:
    """From `toolConfig`. A mode that is not known stays where it is."""
    calling = config.container("functionCallingConfig")
    told = calling.peek("mode")
    if told is not None and (not isinstance(told, str) or told.upper() not in _MODES):
        return None
    calling.text("mode")
    names = calling.texts("allowedFunctionNames")
    if told is None and not names:
        return None
    use = ToolUse.AUTO if told is None else _MODES[told.upper()]
    if use is ToolUse.ANY and len(names) == 1:
        use = ToolUse.NAMED
    return ToolChoice(use=use, names=names, extra={_MODE: told} if told != _mode(use, names) else NOTHING)


def decode_settings(config: SpelledFields, request: SpelledFields) -> Settings:
    """From `generationConfig`; forms go into the `extra` of `request`."""
    modalities = config.peek("responseModalities")
    if isinstance(modalities, list) and all(isinstance(each, str) and each.upper() == "TEXT" for each in modalities):
        request.keep(_MODALITIES, config.take("responseModalities"))
    if config.peek("responseMimeType") == "text/plain":
        request.keep(_MIME_TYPE, config.take("responseMimeType"))
    wanted, top = config.flag("responseLogprobs"), config.whole("logprobs")
    return Settings(
        output=_output(config),
        max_output_tokens=config.whole("maxOutputTokens"),
        stop=config.texts("stopSequences"),
        sampling=Sampling(
            temperature=config.number("temperature"),
            top_p=config.number("topP"),
            top_k=config.number("topK"),
            presence_penalty=config.number("presencePenalty"),
            frequency_penalty=config.number("frequencyPenalty"),
            seed=config.whole("seed"),
        ),
        choices=config.whole("candidateCount"),
        reasoning=_reasoning(config.container("thinkingConfig")),
        logprobs=Logprobs(wanted=wanted, top=top) if wanted is not None or top is not None else None,
    )


def _output(config: SpelledFields) -> JSONOutput | None:
    mime_type = config.peek("responseMimeType")
    if mime_type not in (None, _JSON):
        # Another language than JSON (`text/x.enum`) stays where it is.
        return None
    schema = config.object("responseJsonSchema")
    extra: dict[str, Any] = {}
    if schema is None and (own := config.object("responseSchema")) is not None:
        schema = to_json_schema(own, f"{_CONFIG}.responseSchema")
        extra[_OWN_SCHEMA] = own
    if mime_type is None:
        if schema is None:
            return None
        extra[_MIME_TYPE] = None
    config.text("responseMimeType")
    return JSONOutput(schema=schema, extra=extra or NOTHING)


def _reasoning(config: SpelledFields) -> Reasoning | None:
    level = config.peek("thinkingLevel")
    effort = level.lower() if isinstance(level, str) and level.lower() in _EFFORTS else None
    if effort is not None:
        config.text("thinkingLevel")
    budget, visible = config.whole("thinkingBudget"), config.flag("includeThoughts")
    if effort is None and budget is None and visible is None:
        return None
    extra = {_LEVEL: level} if effort is not None and level != effort.upper() else NOTHING
    return Reasoning(effort=effort, budget_tokens=budget, visible=visible, extra=extra)


def encode_tool_choice(document: SpelledObject, conversation: Conversation, *, own: bool) -> None:
    """Write `toolConfig`."""
    choice = conversation.tool_choice
    if choice is None:
        return
    if choice.parallel is False and choice.use is not ToolUse.NONE:
        raise Untranslatable("a request for one tool call at a time")
    if choice.use is not None:
        mode = _mode(choice.use, choice.names)
        document.put(f"{_CALLING}.mode", choice.extra.get(_MODE, mode) if own else mode)
    document.put_array(f"{_CALLING}.allowedFunctionNames", choice.names)


def _mode(use: ToolUse, names: tuple[str, ...]) -> str:
    match use:
        case ToolUse.AUTO:
            # With AUTO itself, names are refused.
            return "VALIDATED" if names else "AUTO"
        case ToolUse.NONE:
            return "NONE"
        case ToolUse.ANY | ToolUse.NAMED:
            return "ANY"


def encode_settings(
    document: SpelledObject, conversation: Conversation, *, own: bool, model: str, losses: Losses
) -> None:
    """Write `generationConfig`."""
    sampling = conversation.sampling
    for name, value in (
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("topK", sampling.top_k),
        ("presencePenalty", sampling.presence_penalty),
        ("frequencyPenalty", sampling.frequency_penalty),
        ("seed", sampling.seed),
        ("candidateCount", conversation.choices),
        ("maxOutputTokens", conversation.max_output_tokens),
    ):
        document.put(f"{_CONFIG}.{name}", value)
    if not own and len(conversation.stop) > _MOST_STOP_SEQUENCES:
        raise Untranslatable(f"more than {_MOST_STOP_SEQUENCES} stop sequences")
    if not own and (conversation.choices or 1) > _MOST_CHOICES:
        raise Untranslatable(f"more than {_MOST_CHOICES} choices")
    document.put_array(f"{_CONFIG}.stopSequences", conversation.stop)
    if own:
        _put_own(document, conversation)
    else:
        _put_foreign(document, conversation, model, losses)


def _put_own(document: SpelledObject, conversation: Conversation) -> None:
    document.put(f"{_CONFIG}.responseModalities", conversation.extra.get(_MODALITIES))
    document.put(f"{_CONFIG}.responseMimeType", conversation.extra.get(_MIME_TYPE))
    if (logprobs := conversation.logprobs) is not None:
        document.put(f"{_CONFIG}.responseLogprobs", logprobs.wanted)
        document.put(f"{_CONFIG}.logprobs", logprobs.top)
    if (output := conversation.output) is not None:
        document.put(f"{_CONFIG}.responseMimeType", output.extra.get(_MIME_TYPE, _JSON))
        if _OWN_SCHEMA in output.extra:
            document.put(f"{_CONFIG}.responseSchema", output.extra[_OWN_SCHEMA])
        else:
            document.put(f"{_CONFIG}.responseJsonSchema", output.schema)
    if (reasoning := conversation.reasoning) is not None:
        level = None if reasoning.effort is None else reasoning.effort.upper()
        document.put(f"{_THINKING}.thinkingLevel", reasoning.extra.get(_LEVEL, level))
        document.put(f"{_THINKING}.thinkingBudget", reasoning.budget_tokens)
        document.put(f"{_THINKING}.includeThoughts", reasoning.visible)


def _put_foreign(document: SpelledObject, conversation: Conversation, model: str, losses: Losses) -> None:
    if (logprobs := conversation.logprobs) is not None and (logprobs.wanted or logprobs.top):
        losses.drop("logprobs")
    if (output := conversation.output) is not None:
        _put_output(document, output, conversation, model, losses)
    if (reasoning := conversation.reasoning) is not None:
        for name, value in thinking_config(reasoning, model, losses).items():
            document.put(f"{_THINKING}.{name}", value)


def _put_output(
    document: SpelledObject, output: JSONOutput, conversation: Conversation, model: str, losses: Losses
) -> None:
    if conversation.tools and generation(model) < THIRD:
        raise Untranslatable("JSON output together with tools")
    document.put(f"{_CONFIG}.responseMimeType", _JSON)
    document.put(f"{_CONFIG}.responseJsonSchema", output.schema)
    # `strict` is no loss: this API keeps to every schema.
    if output.name is not None:
        losses.drop("output.name")
    if output.description is not None:
        losses.drop("output.description")
