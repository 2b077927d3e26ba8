"""Google's Gemini API: `embedContent` and `batchEmbedContents`.

Decoding a document and encoding it again gives an equal one, but that a body which names its model names, encoded for
another model, that other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call, Usage
from llm_sidecar.formats.fields import count
from llm_sidecar.translation.answer import ToldUsage
from llm_sidecar.translation.base import EncodedRequest
from llm_sidecar.translation.embeddings import EmbeddingAnswer, EmbeddingInput, EmbeddingRequest
from llm_sidecar.translation.foreign import check_extra, drop_extra
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.parts import NOTHING, Document
from llm_sidecar.translation.spelling import SpelledFields, SpelledObject

_BATCH: Final = "batchEmbedContents"
_SINGLE: Final = "embedContent"
_MOST_INPUTS: Final = 100
_MODELS: Final = "models/"

_VERSION: Final = "$version"
_MODEL_PREFIX: Final = "$model_prefix"
_CONTENT: Final = "$content"
"""`extra` of the object around an input's parts."""
_PART: Final = "$part"
"""`extra` of an input's only part."""
_RESTS: Final = "embeddings"
"""What was told beside each vector, if anything was."""
_SETTINGS: Final = ("taskType", "title", "outputDimensionality")


class GeminiEmbeddingsTranslator:
    """`POST /v1[beta]/models/M:embedContent` and `:batchEmbedContents`."""

    api: API = API.GEMINI

    def decode_request(self, call: Call, document: Mapping[str, Any]) -> EmbeddingRequest:
        """See `EmbeddingTranslator`, here and below."""
        if call.model is None:
            raise Undecodable("the path must name the model")
        is_batch = call.path.endswith(f":{_BATCH}")
        fields = SpelledFields(document, "request")
        fields.keep(_VERSION, call.path.split("/")[1])
        each = [SpelledFields(one, "requests") for one in fields.repeated("requests")] if is_batch else [fields]
        # The middle has one setting for all inputs; where they differ, each keeps its own, and no other API can say it.
        common = {name: each[0].peek(name) for name in _SETTINGS} if each else {}
        is_common = all({name: one.peek(name) for name in _SETTINGS} == common for one in each)
        settings = [_settings(one) for one in each] if is_common else []
        task_type, title, dimensions = settings[0] if settings else (None, None, None)
        inputs = tuple(_input(one, own_extra=is_batch) for one in each)
        return EmbeddingRequest(
            api=self.api,
            model=call.model,
            inputs=inputs,
            is_batch=is_batch,
            dimensions=dimensions,
            task_type=task_type,
            title=title,
            extra=fields.extra,
        )

    def encode_request(self, request: EmbeddingRequest, *, model: str, losses: Losses) -> EncodedRequest:
        """The request for `model`: a batch where a list was given."""
        own = request.api is self.api
        if not own:
            _check_foreign(request, losses)
        document = SpelledObject(request.extra if own else NOTHING)
        if request.is_batch:
            each = [SpelledObject(one.extra if own else NOTHING) for one in request.inputs]
            for one, given in zip(each, request.inputs, strict=True):
                _put_input(one, given, request, model, given.extra if own else {_MODEL_PREFIX: _MODELS})
            document.put_array("requests", [one.finish() for one in each])
        elif request.inputs:
            _put_input(document, request.inputs[0], request, model, request.extra if own else NOTHING)
        version = request.extra.get(_VERSION, "v1beta") if own else "v1beta"
        verb = _BATCH if request.is_batch else _SINGLE
        path = f"/{version}/models/{quote(model, safe='')}:{verb}"
        return EncodedRequest(path=path, document=document.finish())

    def decode_answer(self, request: EmbeddingRequest, document: Mapping[str, Any]) -> EmbeddingAnswer:
        """One vector, or those of a batch."""
        fields = SpelledFields(document, "answer")
        single = fields.object("embedding")
        told = fields.repeated("embeddings") if single is None else [single]
        vectors, rests = [], []
        for one in told:
            embedding = SpelledFields(one, "embeddings")
            vectors.append(_vector(embedding.take("values")))
            rests.append(embedding.extra)
        fields.keep(_RESTS, tuple(rests) if any(rests) else None)
        usage = fields.object("usageMetadata")
        return EmbeddingAnswer(
            api=self.api,
            model=request.model,
            vectors=tuple(vectors),
            usage=None if usage is None else ToldUsage(buckets=_usage(usage), extra=usage),
            extra=fields.extra,
        )

    def encode_answer(self, request: EmbeddingRequest, answer: EmbeddingAnswer, *, losses: Losses) -> Mapping[str, Any]:
        """`embeddings` for a batch, else `embedding`."""
        own = answer.api is self.api
        if not own:
            drop_extra(answer.extra, where="", losses=losses)
        rests = answer.extra.get(_RESTS, ()) if own else ()
        extra = {name: value for name, value in answer.extra.items() if name != _RESTS} if own else NOTHING
        document = SpelledObject(extra)
        embeddings = []
        for index, vector in enumerate(answer.vectors):
            embedding = SpelledObject(rests[index] if rests else NOTHING)
            embedding.put("values", list(vector))
            embeddings.append(embedding.finish())
        if request.is_batch:
            document.put_array("embeddings", embeddings)
        elif embeddings:
            document.put("embedding", embeddings[0])
        if answer.usage is not None:
            document.put("usageMetadata", dict(answer.usage.extra) if own else _told(answer.usage.buckets))
        return document.finish()


def _settings(fields: SpelledFields) -> tuple[str | None, str | None, int | None]:
    return fields.text("taskType"), fields.text("title"), fields.whole("outputDimensionality")


def _input(fields: SpelledFields, *, own_extra: bool) -> EmbeddingInput:
    """A text, where the content is one; anything else stays as it is."""
    if (named := fields.text("model")) is not None:
        fields.keep(_MODEL_PREFIX, _MODELS if named.startswith(_MODELS) else "")
    text = _only_text(fields)
    return EmbeddingInput(text=text, extra=fields.extra if own_extra else NOTHING)


def _only_text(fields: SpelledFields) -> str | None:
    value = fields.peek("content")
    if not isinstance(value, dict):
        return None
    content = SpelledFields(value, "content")
    parts = content.repeated("parts")
    if len(parts) != 1 or not isinstance(parts[0], dict) or not isinstance(parts[0].get("text"), str):
        return None
    part = SpelledFields(parts[0], "content.parts")
    text = part.text("text")
    if any(left is not None for left in part.left.values()):
        return None
    fields.object("content")
    fields.keep(_CONTENT, dict(content.extra))
    fields.keep(_PART, dict(part.extra))
    return text


def _put_input(
    document: SpelledObject, given: EmbeddingInput, request: EmbeddingRequest, model: str, forms: Document
) -> None:
    prefix = forms.get(_MODEL_PREFIX)
    document.put("model", None if prefix is None else f"{prefix}{model}")
    if given.text is not None:
        part = SpelledObject(forms.get(_PART, NOTHING))
        part.put("text", given.text)
        content = SpelledObject(forms.get(_CONTENT, NOTHING))
        content.put_array("parts", [part.finish()])
        document.put("content", content.finish())
    document.put("taskType", request.task_type)
    document.put("title", request.title)
    document.put("outputDimensionality", request.dimensions)


def _check_foreign(request: EmbeddingRequest, losses: Losses) -> None:
    check_extra(request.extra, where="", harmless=frozenset(), losses=losses)
    if request.user is not None:
        losses.drop("user")
    if len(request.inputs) > _MOST_INPUTS:
        raise Untranslatable(f"more than {_MOST_INPUTS} inputs at once")
    for given in request.inputs:
        check_extra(given.extra, where="input", harmless=frozenset(), losses=losses)
        if given.text is None:
            raise Untranslatable("input as token numbers")


def _vector(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise Undecodable("embeddings.values must be an array of numbers")
    return tuple(values)


def _usage(usage: Mapping[str, Any]) -> Usage:
    """An embedding has no output: none, not unknown."""
    return Usage(input_tokens=count(usage, "promptTokenCount"), output_tokens=0)


def _told(buckets: Usage) -> dict[str, int]:
    told = buckets.told_input_tokens
    return {} if told is None else {"promptTokenCount": told}
