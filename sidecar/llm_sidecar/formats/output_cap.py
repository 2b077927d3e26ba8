"""The bound that a request puts on its own output: where each API says it, and how to lower it in place.

Every byte but the bound's own stays. What a bound must leave room for is told too: a model that thinks spends its
thoughts out of the same bound, and a request whose thinking fills it gets no answer at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import ParsedRequest, Splice
from llm_sidecar.formats.fields import count, mapping
from llm_sidecar.formats.json_body import Member, apply_splices, insert_member, member, members

_NAMES: Final[Mapping[API, tuple[str, ...]]] = MappingProxyType(
    {
        # OpenAI's reasoning models refuse the older name: so the first one is put in where a request has none.
        API.OPENAI_CHAT: ("max_completion_tokens", "max_tokens"),
        API.OPENAI_RESPONSES: ("max_output_tokens",),
        API.ANTHROPIC_MESSAGES: ("max_tokens",),
        API.GEMINI: ("maxOutputTokens", "max_output_tokens"),
    }
)
_GEMINI_CONFIGS: Final = ("generationConfig", "generation_config")
_LONGEST_NUMBER_BYTES: Final = 32

EFFORT_TOKENS: Final[Mapping[str, int]] = MappingProxyType(
    {"low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 24_576}
)
"""What thinking by effort may take. A guess, since no provider promises one: the budgets that effort is translated to,
rounded down to what all models allow."""


def choices(request: ParsedRequest) -> int:
    """How many answers the request asks for: each has the bound to itself."""
    document = request.document
    match request.call.api:
        case API.OPENAI_CHAT:
            told = count(document, "n")
        case API.GEMINI:
            told = count(mapping(document, *_GEMINI_CONFIGS), "candidateCount", "candidate_count")
        case _:
            told = None
    return max(1, told or 1)


def thinking_tokens(request: ParsedRequest) -> int:
    """How many tokens the request lets a model think, by a budget or an effort that it names; 0 where it names none."""
    document = request.document
    match request.call.api:
        case API.ANTHROPIC_MESSAGES:
            return _anthropic_thinking_tokens(document)
        case API.GEMINI:
            config = mapping(mapping(document, *_GEMINI_CONFIGS), "thinkingConfig", "thinking_config")
            told = count(config, "thinkingBudget", "thinking_budget")
            level = config.get("thinkingLevel", config.get("thinking_level"))
            return told if told is not None else _by_effort(level)
        case API.OPENAI_CHAT:
            return _by_effort(document.get("reasoning_effort"))
        case API.OPENAI_RESPONSES:
            return _by_effort(mapping(document, "reasoning").get("effort"))
        case _:
            return 0


def _anthropic_thinking_tokens(document: Mapping[str, Any]) -> int:
    """Effort says how long a model thinks only where it thinks by it: without `thinking`, it is about the answer."""
    thinking = mapping(document, "thinking")
    match thinking.get("type"):
        case "enabled":
            return count(thinking, "budget_tokens") or 0
        case None | "disabled":
            return 0
        case _:
            return _by_effort(mapping(document, "output_config").get("effort"))


def _by_effort(effort: object) -> int:
    return EFFORT_TOKENS.get(effort.lower(), 0) if isinstance(effort, str) else 0


def with_output_cap(request: ParsedRequest, tokens: int) -> ParsedRequest:
    """The request with at most so many tokens for each answer; the same object where it asks for no more anyway.

    Raises `MalformedRequest` where the bound's place cannot be found.
    """
    if request.call.type is not RequestType.GENERATION:
        return request
    if request.call.api is API.GEMINI:
        splices, document = _gemini(request, tokens)
    else:
        splices, document = _top_level(request, tokens)
    if not splices:
        return request
    return replace(
        request,
        body=apply_splices(request.body, sorted(splices, key=lambda splice: splice.start)),
        document=document,
        max_output_tokens=min(_told(request, document), tokens) * choices(request),
    )


def _told(request: ParsedRequest, document: Mapping[str, Any]) -> int:
    holder = mapping(document, *_GEMINI_CONFIGS) if request.call.api is API.GEMINI else document
    return count(holder, *_NAMES[request.call.api]) or 0


def _top_level(request: ParsedRequest, tokens: int) -> tuple[list[Splice], Mapping[str, Any]]:
    body, document, names = request.body, request.document, _NAMES[request.call.api]
    present = [name for name in names if document.get(name) is not None]
    # A null is written over rather than joined by a second name for the same.
    present = present or [name for name in names if name in document][:1]
    if not present:
        return [insert_member(body, 0, names[0], b"%d" % tokens)], {**document, names[0]: tokens}
    too_large = [name for name in present if not _is_within(document[name], tokens)]
    places = [member(body, document, name) for name in too_large]
    splices = [Splice(place.start, place.end, b"%d" % tokens) for place in places if place is not None]
    return splices, {**document, **dict.fromkeys(too_large, tokens)}


def _gemini(request: ParsedRequest, tokens: int) -> tuple[list[Splice], Mapping[str, Any]]:
    body, document = request.body, request.document
    names = _NAMES[API.GEMINI]
    splices: list[Splice] = []
    changed: dict[str, Any] = {}
    for name in _GEMINI_CONFIGS:
        place = member(body, document, name)
        if place is None or not isinstance(document[name], dict):
            continue
        # Doubled keys, and the two spellings side by side, are the provider's to judge; but none of them may say more.
        told = [found for found in members(body, place.start) if found.key in names]
        # A null says nothing: it is written over where nothing else does.
        bounds = [found for found in told if body[found.start : found.end] != b"null"] or told
        too_large = [found for found in bounds if not _is_within(_value(body, found), tokens)]
        splices += [Splice(found.start, found.end, b"%d" % tokens) for found in too_large]
        if not bounds:
            splices.append(insert_member(body, place.start, names[0], b"%d" % tokens))
        keys = [found.key for found in too_large] if bounds else [names[0]]
        changed[name] = {**document[name], **dict.fromkeys(keys, tokens)}
    if changed:
        return splices, {**document, **changed}
    return _new_gemini_config(body, document, names[0], tokens)


def _new_gemini_config(
    body: bytes, document: Mapping[str, Any], bound: str, tokens: int
) -> tuple[list[Splice], Mapping[str, Any]]:
    config = b'{"%b":%d}' % (bound.encode(), tokens)
    name = next((name for name in _GEMINI_CONFIGS if name in document), _GEMINI_CONFIGS[0])
    changed = {**document, name: {bound: tokens}}
    if name not in document:
        return [insert_member(body, 0, name, config)], changed
    if document[name] is not None:
        return [], document  # the provider will refuse it, in better words than ours
    place = member(body, document, name)
    return ([] if place is None else [Splice(place.start, place.end, config)]), changed


def _value(body: bytes, place: Member) -> object:
    if place.end - place.start > _LONGEST_NUMBER_BYTES:
        return None
    return orjson.loads(body[place.start : place.end])


def _is_within(value: object, tokens: int) -> bool:
    """True for a bound that is low enough. What is no such number may mean "no bound" to some server: it is not."""
    return type(value) is int and 0 <= value <= tokens
