"""Gemini's `generateContent`, its two streams, `countTokens`, embeddings and `models`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from llm_sidecar.simulate.answer import (
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    Answer,
    Finish,
    Frame,
    JSONObject,
    Prompt,
    Stamp,
    Tool,
    Usage,
    count_tokens,
)
from llm_sidecar.simulate.embedding import vector
from llm_sidecar.simulate.errors import Family, invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DEFAULT_DIMENSIONS = 3072
_CAPITAL = re.compile(r"[A-Z]")


def read(body: JSONObject, *, model: str, stream: bool) -> Prompt:
    """Read a request, or refuse it as Google would."""
    contents = _get(body, "contents")
    if not isinstance(contents, list) or not contents:
        message = "* GenerateContentRequest.contents: contents is not specified\n"
        raise invalid_request(Family.GEMINI, message)
    options = _get(body, "generationConfig") or {}
    declared = [each for tool in _get(body, "tools") or () for each in _get(tool, "functionDeclarations") or ()]
    tools = tuple(
        Tool(name=each["name"], schema=_get(each, "parametersJsonSchema") or _get(each, "parameters"))
        for each in declared
    )
    calling = _get(_get(body, "toolConfig") or {}, "functionCallingConfig") or {}
    mode = str(_get(calling, "mode") or "AUTO").upper()
    allowed = _get(calling, "allowedFunctionNames") or [tool.name for tool in tools]
    system = _get(body, "systemInstruction")
    parts = [part for content in (*contents, *([system] if system else ())) for part in content.get("parts") or ()]
    images = sum(_get(part, "inlineData") is not None or _get(part, "fileData") is not None for part in parts)
    results = [each for part in contents[-1].get("parts") or () if (each := _get(part, "functionResponse"))]
    characters = sum(_characters(part) for part in parts) + (len(orjson.dumps(declared)) if declared else 0)
    return Prompt(
        model=model,
        text=next((text for each in reversed(contents) if each.get("role") != "model" and (text := _text(each))), ""),
        tool_result=" ".join(orjson.dumps(each.get("response")).decode() for each in results) if results else None,
        input_tokens=count_tokens(characters) + TOKENS_PER_MESSAGE * len(contents) + TOKENS_PER_IMAGE * images,
        image_count=images,
        tools=tools,
        must_call=tuple(allowed) if mode == "ANY" else (),
        may_call=mode != "NONE",
        schema=_schema(options),
        thinking=_thinks(_get(options, "thinkingConfig")),
        maximum_output_tokens=_get(options, "maxOutputTokens"),
        stop_sequences=tuple(_get(options, "stopSequences") or ()),
        answer_count=_get(options, "candidateCount") or 1,
        stream=stream,
    )


def shows_thoughts(body: JSONObject) -> bool:
    """Tell whether thoughts shall be part of the answer, not only of its usage."""
    return bool(_get(_get(_get(body, "generationConfig") or {}, "thinkingConfig") or {}, "includeThoughts"))


def usage_of(usage: Usage, *, image_count: int = 0) -> JSONObject:
    """Return usage as this API tells it: cached tokens inside the prompt, thoughts beside the candidates."""
    images = image_count * TOKENS_PER_IMAGE
    details = [{"modality": "TEXT", "tokenCount": usage.input_tokens - images}]
    told: JSONObject = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.thinking_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
        "promptTokensDetails": [*details, {"modality": "IMAGE", "tokenCount": images}] if images else details,
    }
    if usage.thinking_tokens:
        told["thoughtsTokenCount"] = usage.thinking_tokens
    if usage.cached_input_tokens:
        told["cachedContentTokenCount"] = usage.cached_input_tokens
        told["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cached_input_tokens}]
    return told


def plain(prompt: Prompt, answer: Answer, stamp: Stamp, *, thoughts: bool) -> JSONObject:
    """Write the answer as one JSON object."""
    candidates = [
        {
            "content": {"parts": list(_parts(answer, stamp, thoughts=thoughts)), "role": "model"},
            "finishReason": _finish_reason(answer),
            "index": index,
        }
        for index in range(prompt.answer_count)
    ]
    told = {"usageMetadata": usage_of(answer.usage, image_count=prompt.image_count)} if answer.tell_usage else {}
    return {"candidates": candidates, **told, **_tail(prompt, stamp)}


def frames(prompt: Prompt, answer: Answer, stamp: Stamp, *, thoughts: bool) -> Iterator[Frame]:
    """Write the answer as chunks, each of them telling the usage so far.

    No `event:` lines and no comments: google-genai takes any other line than `data: ` for a piece of JSON.
    """
    tail, said = _tail(prompt, stamp), 0
    thinking = answer.usage.thinking_tokens

    def chunk(part: JSONObject, piece: str | None, finish: str | None = None, index: int = 0) -> Frame:
        candidate: JSONObject = {"content": {"parts": [part], "role": "model"}, "index": index}
        if finish:
            candidate["finishReason"] = finish
        output = (
            answer.usage.output_tokens if finish else min(count_tokens(said) + thinking, answer.usage.output_tokens)
        )
        usage = Usage(
            input_tokens=answer.usage.input_tokens,
            cached_input_tokens=answer.usage.cached_input_tokens,
            output_tokens=output,
            thinking_tokens=thinking,
        )
        told = {"usageMetadata": usage_of(usage, image_count=prompt.image_count)} if answer.tell_usage else {}
        tells = usage if answer.tell_usage else None
        data = {"candidates": [candidate], **told, **tail}
        return Frame(data, piece=piece, is_thought="thought" in part, terminal=bool(finish), tells=tells)

    whole_parts = [part for part in _parts(answer, stamp, thoughts=thoughts) if "text" not in part or "thought" in part]
    for index in range(prompt.answer_count):
        for part in whole_parts:
            piece = part.get("text") or orjson.dumps(part["functionCall"]).decode()
            said += 0 if "text" in part else len(piece)
            yield chunk(part, piece, index=index)
        for piece in answer.pieces:
            said += len(piece)
            yield chunk({"text": piece}, piece, index=index)
    for index in range(prompt.answer_count):
        yield chunk({"text": ""}, None, _finish_reason(answer), index)


def count(body: JSONObject, *, model: str) -> JSONObject:
    """Answer `countTokens`, whose request may stand in `generateContentRequest`."""
    prompt = read(_get(body, "generateContentRequest") or body, model=model, stream=False)
    return {
        "totalTokens": prompt.input_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt.input_tokens}],
    }


def embed(requests: Sequence[JSONObject], *, is_batch: bool, tell_usage: bool) -> tuple[JSONObject, Usage]:
    """Answer `embedContent` or `batchEmbedContents`."""
    values, tokens = [], 0
    for request in requests:
        content = _get(request, "content")
        if not content:
            raise invalid_request(Family.GEMINI, "* EmbedContentRequest.content: content is not specified\n")
        text = _text(content)
        options = _get(request, "embedContentConfig") or {}
        size = _get(request, "outputDimensionality") or _get(options, "outputDimensionality") or _DEFAULT_DIMENSIONS
        values.append({"values": vector(text, size)})
        tokens += count_tokens(len(text))
    told: JSONObject = {"embeddings": values} if is_batch else {"embedding": values[0]}
    if tell_usage:
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        told["usageMetadata"] = {"promptTokenCount": tokens, "promptTokenDetails": details}
    return told, Usage(input_tokens=tokens)


def model(name: str) -> JSONObject:
    """Describe one model."""
    embeds = "embedding" in name
    generates = ["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"]
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "description": f"Simulated {name}",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["embedContent"] if embeds else generates,
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxTemperature": 2,
        "thinking": not embeds,
    }


def models(names: Sequence[str]) -> JSONObject:
    """List the models."""
    return {"models": [model(name) for name in names]}


def _parts(answer: Answer, stamp: Stamp, *, thoughts: bool) -> Iterator[JSONObject]:
    if answer.thinking and thoughts:
        yield {"text": answer.thinking, "thought": True}
    for position, call in enumerate(answer.tool_calls):
        function = {"id": stamp.hexadecimal(f"call/{position}", 8), "name": call.name, "args": call.arguments}
        # Only the first call of a turn carries the signature; Gemini 3 refuses the next turn without it.
        signature = {"thoughtSignature": stamp.token("signature", 128)} if not position else {}
        yield {"functionCall": function, **signature}
    if not answer.tool_calls:
        yield {"text": answer.text}


def _finish_reason(answer: Answer) -> str:
    return "MAX_TOKENS" if answer.finish is Finish.LENGTH else "STOP"


def _tail(prompt: Prompt, stamp: Stamp) -> JSONObject:
    return {"modelVersion": prompt.model, "responseId": stamp.token("response", 23)}


def _get(holder: JSONObject, name: str) -> Any:
    """Look a field up under both names that protobuf's JSON takes: `camelCase` and `snake_case`."""
    if name in holder:
        return holder[name]
    return holder.get(_CAPITAL.sub(lambda found: "_" + found[0].lower(), name))


def _text(content: Any) -> str:
    parts = content.get("parts") or ()
    return " ".join(part["text"] for part in parts if part.get("text"))


def _characters(part: JSONObject) -> int:
    told = _get(part, "functionCall") or _get(part, "functionResponse")
    return len(orjson.dumps(told)) if told else len(part.get("text") or "")


def _thinks(config: JSONObject | None) -> bool:
    return bool(config) and _get(config or {}, "thinkingBudget") != 0


def _schema(options: JSONObject) -> Any:
    schema = _get(options, "responseJsonSchema") or _get(options, "responseSchema")
    if schema:
        return schema
    return {} if _get(options, "responseMimeType") == "application/json" else None
