"""Which file answers which endpoint, and what outlives one request: the stored responses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.simulate import anthropic, embedding, gemini, openai_chat, openai_other, openai_responses
from llm_sidecar.simulate.answer import Answer, Frame, JSONObject, Prompt, Stamp, Usage, compose
from llm_sidecar.simulate.delivery import PlainReply, StreamReply
from llm_sidecar.simulate.errors import (
    Family,
    Refusal,
    anthropic_error,
    invalid_request,
    openai_error,
    unknown_model,
)
from llm_sidecar.simulate.routes import Endpoint, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp import web

    from llm_sidecar.simulate.faults import Faults
    from llm_sidecar.simulate.ledger import Entry

MISSING_MODEL_PREFIX: Final = "missing-"
_STORED_RESPONSES: Final = 256

Reply = PlainReply | StreamReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was let in, as those who answer it see it."""

    request: web.Request
    route: Route
    faults: Faults
    stamp: Stamp
    raw: bytes
    entry: Entry

    def json(self) -> JSONObject:
        """Return the body, which must be a JSON object."""
        try:
            body = orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            raise invalid_request(self.route.family, "We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise invalid_request(self.route.family, "The body of your request must be a JSON object.")
        return body

    def json_with_model(self) -> JSONObject:
        """Return the body, which must name a model that exists."""
        body = self.json()
        model = body.get("model")
        if not isinstance(model, str) or not model:
            message = (
                "model: Field required"
                if self.route.family is Family.ANTHROPIC
                else "you must provide a model parameter"
            )
            raise invalid_request(self.route.family, message)
        self.know_model(model)
        return body

    def know_model(self, model: str) -> None:
        """Write the model down, and refuse it where it does not exist."""
        self.entry.model = model
        if model.startswith(MISSING_MODEL_PREFIX):
            method = self.route.endpoint.partition(".")[2] if self.route.endpoint else ""
            raise unknown_model(self.route.family, model, method=method or "GetModel", version=self.route.version)


class Dispatcher:
    """Turns a request that was let in into its answer."""

    def __init__(self, models: Mapping[Family, tuple[str, ...]]) -> None:
        self._models_of = models
        self._responses: OrderedDict[str, JSONObject] = OrderedDict()

    def answer(self, call: Call) -> Reply:
        """Answer; raises `Refusal` where the provider would refuse."""
        try:
            return self._answer_endpoint(call)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # Requests are read as trustingly as an SDK writes them; a field of another type ends here, as with the
            # real validators, whose many messages nobody relies on.
            message = f"Invalid type or missing field in the request ({type(error).__name__}: {error})."
            raise invalid_request(call.route.family, message[:300]) from None

    def _answer_endpoint(self, call: Call) -> Reply:
        match call.route.endpoint:
            case Endpoint.CHAT:
                return self._chat(call)
            case Endpoint.RESPONSES:
                return self._respond(call)
            case Endpoint.MESSAGES:
                return self._message(call)
            case Endpoint.GENERATE | Endpoint.STREAM_GENERATE:
                return self._generate(call)
            case _:
                return self._small(call)

    def _chat(self, call: Call) -> Reply:
        prompt, answer = _compose(call, openai_chat.read(call.json_with_model()))
        if prompt.stream:
            return _stream(call, answer, openai_chat.frames(prompt, answer, call.stamp))
        return _plain(openai_chat.plain(prompt, answer, call.stamp), answer)

    def _respond(self, call: Call) -> Reply:
        body = call.json_with_model()
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._responses:
            message = f"Previous response with id '{previous}' not found."
            raise invalid_request(
                Family.OPENAI, message, param="previous_response_id", code="previous_response_not_found"
            )
        prompt, answer = _compose(call, openai_responses.read(body))
        whole = openai_responses.plain(prompt, answer, call.stamp, body)
        if body.get("store") is not False:
            self._responses[whole["id"]] = whole
            while len(self._responses) > _STORED_RESPONSES:
                self._responses.popitem(last=False)
        if prompt.stream:
            return _stream(call, answer, openai_responses.frames(prompt, answer, call.stamp, body), is_responses=True)
        return _plain(whole, answer)

    def _message(self, call: Call) -> Reply:
        _need_anthropic_version(call)
        prompt, answer = _compose(call, anthropic.read(call.json_with_model()))
        if prompt.stream:
            return _stream(call, answer, anthropic.frames(prompt, answer, call.stamp))
        return _plain(anthropic.plain(prompt, answer, call.stamp), answer)

    def _generate(self, call: Call) -> Reply:
        call.know_model(call.route.name)
        body = call.json()
        is_stream = call.route.endpoint is Endpoint.STREAM_GENERATE
        thoughts = gemini.shows_thoughts(body)
        prompt, answer = _compose(call, gemini.read(body, model=call.route.name, stream=is_stream))
        if is_stream:
            is_array = call.request.query.get("alt") != "sse"
            return _stream(
                call, answer, gemini.frames(prompt, answer, call.stamp, thoughts=thoughts), is_array=is_array
            )
        return _plain(gemini.plain(prompt, answer, call.stamp, thoughts=thoughts), answer)

    def _small(self, call: Call) -> PlainReply:
        """Answer what generates nothing."""
        tell_usage = call.faults.usage != "none"
        match call.route.endpoint:
            case Endpoint.MODELS | Endpoint.MODEL:
                return self._models(call)
            case Endpoint.INPUT_TOKENS:
                tokens = openai_responses.read(call.json_with_model()).input_tokens
                return _counted({"object": "response.input_tokens", "input_tokens": tokens})
            case Endpoint.COUNT_TOKENS:
                _need_anthropic_version(call)
                return _counted({"input_tokens": anthropic.read(call.json_with_model(), is_count=True).input_tokens})
            case Endpoint.GEMINI_COUNT:
                call.know_model(call.route.name)
                return _counted(gemini.count(call.json(), model=call.route.name))
            case Endpoint.EMBEDDINGS:
                return _measured(*embedding.embeddings(call.json_with_model(), tell_usage=tell_usage), tell_usage)
            case Endpoint.EMBED | Endpoint.BATCH_EMBED:
                call.know_model(call.route.name)
                is_batch = call.route.endpoint is Endpoint.BATCH_EMBED
                requests = call.json()["requests"] if is_batch else [call.json()]
                return _measured(*gemini.embed(requests, is_batch=is_batch, tell_usage=tell_usage), tell_usage)
            case Endpoint.MODERATIONS:
                return _counted(openai_other.moderation(call.json(), call.stamp))
            case Endpoint.TRANSCRIPTIONS:
                content_type = call.request.headers.get("content-type", "")
                return _counted(openai_other.transcription(call.raw, content_type))
            case Endpoint.FILE_CONTENT:
                content = openai_other.file_content(call.route.name)
                return PlainReply(body=content, content_type="application/octet-stream")
            case _:
                return self._stored(call)

    def _models(self, call: Call) -> PlainReply:
        names = self._models_of[call.route.family]
        shape: Any = {
            Family.OPENAI: openai_other,
            Family.ANTHROPIC: anthropic,
            Family.GEMINI: gemini,
        }[call.route.family]
        if call.route.endpoint is Endpoint.MODELS:
            return _counted(shape.models(names))
        call.know_model(call.route.name)
        return _counted(shape.model(call.route.name))

    def _stored(self, call: Call) -> PlainReply:
        found = self._responses.get(call.route.name)
        if found is None:
            raise Refusal(openai_error(404, f"Response with id '{call.route.name}' not found."))
        if call.request.method == "DELETE":
            del self._responses[call.route.name]
            return _counted({"id": call.route.name, "object": "response", "deleted": True})
        return _counted(found)


def _compose(call: Call, prompt: Prompt) -> tuple[Prompt, Answer]:
    call.entry.stream = prompt.stream
    return prompt, compose(prompt, call.faults)


def _plain(body: JSONObject, answer: Answer) -> PlainReply:
    return _measured(body, answer.usage, answer.tell_usage)


def _measured(body: JSONObject, usage: Usage, tell_usage: bool) -> PlainReply:  # noqa: FBT001 - follows a pair unpacked
    return PlainReply(body=orjson.dumps(body), usage_true=usage, usage_told=usage if tell_usage else None)


def _counted(body: JSONObject) -> PlainReply:
    return PlainReply(body=orjson.dumps(body))


def _stream(
    call: Call, answer: Answer, frames: Iterable[Frame], *, is_responses: bool = False, is_array: bool = False
) -> StreamReply:
    return StreamReply(
        frames=frames, usage=answer.usage, family=call.route.family, is_responses=is_responses, is_array=is_array
    )


def _need_anthropic_version(call: Call) -> None:
    if "anthropic-version" not in call.request.headers:
        raise Refusal(anthropic_error(400, "anthropic-version: header is required"))
