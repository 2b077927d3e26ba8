"""OpenAI embeddings, to and from the middle.

Decoding and encoding a document gives it back; vectors in base64 come back bit by bit. `encoding_format` is the way an
answer is spelled: an answer decoded in either form is encoded in the one that its request asked for.
"""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.openai_usage import chat_usage
from llm_sidecar.translation.answer import ToldUsage
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.embeddings import EmbeddingAnswer, EmbeddingInput, EmbeddingRequest
from llm_sidecar.translation.foreign import check_extra, drop_extra
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.reading import Fields

_PATH: Final = "/embeddings"
_FLOAT_BYTES: Final = 4


class OpenAIEmbeddingsTranslator:
    """`POST /v1/embeddings`."""

    api: API = API.OPENAI_EMBEDDINGS

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> EmbeddingRequest:
        """Raises `Undecodable`."""
        fields = Fields(document, "the request")
        inputs, is_batch = _decode_input(fields.take("input"))
        return EmbeddingRequest(
            api=self.api,
            model=fields.text("model") or "",
            inputs=inputs,
            is_batch=is_batch,
            dimensions=fields.whole("dimensions"),
            encoding=fields.text("encoding_format"),
            user=fields.text("user"),
            extra=fields.rest,
        )

    def encode_request(self, request: EmbeddingRequest, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`. Raises `Untranslatable`."""
        document: dict[str, Any] = {"model": model, "input": _encode_input(request)}
        if request.dimensions is not None:
            document["dimensions"] = request.dimensions
        if request.encoding is not None:
            document["encoding_format"] = request.encoding
        if request.user is not None:
            document["user"] = request.user
        if request.api is self.api:
            document |= request.extra
        else:
            _check_foreign(request, losses)
        return EncodedRequest(path=_PATH, document=document)

    def decode_answer(self, request: EmbeddingRequest, document: Mapping[str, Any]) -> EmbeddingAnswer:
        """Raises `Undecodable`. Vectors are put into the order of their inputs."""
        fields = Fields(document, "the answer")
        items = fields.array("data")
        if items is None:
            raise Undecodable("data must be an array")
        form: dict[str, Any] = {}
        if fields.rest.get("object") == "list":
            fields.take("object")
        else:
            form["$object"] = "absent"
        found = [_decode_item(item, n) for n, item in enumerate(items)]
        found.sort(key=lambda item: item[0])
        if any(rest for _, _, rest in found):
            form["$data"] = [dict(rest) for _, _, rest in found]
        usage = fields.object("usage")
        return EmbeddingAnswer(
            api=self.api,
            model=fields.text("model") or "",
            vectors=tuple(vector for _, vector, _ in found),
            usage=None if usage is None else _decode_usage(usage),
            extra={**fields.rest, **form},
        )

    def encode_answer(self, request: EmbeddingRequest, answer: EmbeddingAnswer, *, losses: Losses) -> Mapping[str, Any]:
        """The answer's document, in the form that `request` asked for."""
        is_own = answer.api is self.api
        rests = answer.extra.get("$data") if is_own else None
        data = []
        for index, vector in enumerate(answer.vectors):
            embedding = _base64(vector) if request.encoding == "base64" else list(vector)
            item = {"object": "embedding", "index": index, "embedding": embedding}
            data.append(item | (rests[index] if rests else {}))
        document: dict[str, Any] = {"object": "list", "data": data, "model": answer.model}
        if answer.usage is not None:
            document["usage"] = dict(answer.usage.extra) if is_own else _usage(answer.usage.buckets.told_input_tokens)
        elif not is_own:
            # The SDK's type demands it; an API that tells none leaves nothing better to say.
            document["usage"] = _usage(None)
        if not is_own:
            drop_extra(answer.extra, where="", losses=losses)
            return document
        if "$object" in answer.extra:
            del document["object"]
        return document | {name: value for name, value in answer.extra.items() if not name.startswith("$")}


def _decode_usage(usage: Mapping[str, Any]) -> ToldUsage:
    """There is no output, which is not the same as untold."""
    buckets = chat_usage(usage)
    return ToldUsage(buckets=replace(buckets, output_tokens=buckets.output_tokens or 0), extra=usage)


def _usage(tokens: int | None) -> dict[str, int]:
    return {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0}


def _check_foreign(request: EmbeddingRequest, losses: Losses) -> None:
    """`task_type` makes other vectors, though ones that fit together: without it they still are what was asked for."""
    for name, told in (("taskType", request.task_type), ("title", request.title)):
        if told is not None:
            losses.drop(name)
    check_extra(request.extra, where="", harmless=frozenset(), losses=losses)
    for given in request.inputs:
        check_extra(given.extra, where="input", harmless=frozenset(), losses=losses)


def _decode_input(given: Any) -> tuple[tuple[EmbeddingInput, ...], bool]:
    if isinstance(given, str):
        return (EmbeddingInput(text=given),), False
    if isinstance(given, list) and given:
        if all(type(item) is int for item in given):
            return (EmbeddingInput(tokens=tuple(given)),), False
        return tuple(_decode_one(item, n) for n, item in enumerate(given)), True
    raise Undecodable("input must be a string or an array that is not empty")


def _decode_one(item: Any, position: int) -> EmbeddingInput:
    if isinstance(item, str):
        return EmbeddingInput(text=item)
    if isinstance(item, list) and all(type(token) is int for token in item):
        return EmbeddingInput(tokens=tuple(item))
    raise Undecodable(f"input[{position}] must be a string or an array of token numbers")


def _encode_input(request: EmbeddingRequest) -> Any:
    given: list[Any] = []
    for item in request.inputs:
        if item.text is None and item.tokens is None:
            raise Untranslatable("an input that is neither text nor tokens")
        given.append(item.text if item.tokens is None else list(item.tokens))
    return given if request.is_batch or len(given) != 1 else given[0]


def _decode_item(item: Any, position: int) -> tuple[int, tuple[float, ...], Mapping[str, Any]]:
    where = f"data[{position}]"
    fields = Fields(item, where)
    index, told = fields.whole("index"), fields.take("embedding")
    if fields.rest.get("object") == "embedding":
        fields.take("object")
    return position if index is None else index, _decode_vector(told, where), fields.rest


def _decode_vector(told: Any, where: str) -> tuple[float, ...]:
    if isinstance(told, str):
        try:
            packed = base64.b64decode(told, validate=True)
        except binascii.Error:
            packed = b"?"
        if len(packed) % _FLOAT_BYTES == 0:
            return struct.unpack(f"<{len(packed) // _FLOAT_BYTES}f", packed)
    elif isinstance(told, list) and all(type(value) in (int, float) for value in told):
        return tuple(told)
    raise Undecodable(f"{where}.embedding must be an array of numbers, or such floats in base64")


def _base64(vector: tuple[float, ...]) -> str:
    try:
        packed = struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:
        raise Untranslatable("a number too large for a vector in base64") from None
    return base64.b64encode(packed).decode()
