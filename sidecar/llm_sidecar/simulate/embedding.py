"""Vectors that depend on the text alone, cheap enough for thousands a second; and OpenAI's `embeddings` around them."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from typing import TYPE_CHECKING, Any

import orjson

from llm_sidecar.simulate.answer import JSONObject, Usage, count_tokens
from llm_sidecar.simulate.errors import Family, Refusal, invalid_request, openai_error

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_DIMENSIONS = 1536
_LARGE_DIMENSIONS = 3072
_MAXIMUM_DIMENSIONS = 8192
_MAXIMUM_INPUTS = 2048


def vector(text: str, dimensions: int) -> list[float]:
    """Return a unit vector of 32-bit numbers, the same for the same text."""
    if not 1 <= dimensions <= _MAXIMUM_DIMENSIONS:
        raise ValueError("dimensions")
    noise = hashlib.shake_128(text.encode()).digest(dimensions)
    length = math.sqrt(sum((byte - 127.5) ** 2 for byte in noise))
    return array("f", [(byte - 127.5) / length for byte in noise]).tolist()


def embeddings(body: JSONObject, *, tell_usage: bool) -> tuple[JSONObject, Usage]:
    """Answer OpenAI's `embeddings`: text or token ids, one or many."""
    inputs = _inputs(body.get("input"))
    dimensions = body.get("dimensions")
    if dimensions is None:
        dimensions = _LARGE_DIMENSIONS if "large" in body["model"] else _DEFAULT_DIMENSIONS
    elif not 1 <= dimensions <= _MAXIMUM_DIMENSIONS:
        raise Refusal(openai_error(400, f"{dimensions} is less than the minimum of 1 - 'dimensions'"))
    data, tokens = [], 0
    for index, given in enumerate(inputs):
        text = given if isinstance(given, str) else orjson.dumps(given).decode()
        tokens += count_tokens(len(given)) if isinstance(given, str) else len(given)
        data.append(
            {"object": "embedding", "index": index, "embedding": _encoded(vector(text, dimensions), body)},
        )
    usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if tell_usage else {}
    return {"object": "list", "data": data, "model": body["model"], **usage}, Usage(input_tokens=tokens)


def _encoded(values: list[float], body: JSONObject) -> list[float] | str:
    if body.get("encoding_format") != "base64":
        return values
    return base64.b64encode(array("f", values).tobytes()).decode()


def _inputs(given: Any) -> Sequence[str | list[int]]:
    if isinstance(given, str) and given:
        return [given]
    if isinstance(given, list) and given and len(given) <= _MAXIMUM_INPUTS:
        if all(isinstance(each, int) for each in given):
            return [given]
        if all(isinstance(each, str | list) and each for each in given):
            return given
    raise invalid_request(Family.OPENAI, "'$.input' is invalid. Please check the API reference.")
