"""What is answered from the configuration alone: model lists, and by name what is not served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.errors import EndpointNotAllowed, MethodNotAllowed, UnknownModel, WebSocketsNotSupported
from llm_sidecar.formats.model_lists import model_list, one_model
from llm_sidecar.formats.recognise import (
    Family,
    ModelGet,
    ModelList,
    Recognised,
    UnknownEndpoint,
    WebSocketRefused,
    WrongMethod,
)
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.runtime import Runtime

FAMILY_APIS = {
    Family.OPENAI: (API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.OPENAI_EMBEDDINGS),
    Family.ANTHROPIC: (API.ANTHROPIC_MESSAGES,),
    Family.GEMINI: (API.GEMINI,),
}


def answer_listing(exchange: Exchange, recognised: Recognised) -> web.Response:
    """Answer a model list or one model; raise by name what is not served."""
    match recognised:
        case ModelList(family=family):
            exchange.record.type = RequestType.MODELS
            return _reply(exchange, model_list(family, allowed_models(exchange.serving.runtime, family)))
        case ModelGet(family=family, model=model):
            exchange.record.type = RequestType.MODELS
            name = model.removeprefix("models/") if family is Family.GEMINI else model
            if name not in allowed_models(exchange.serving.runtime, family):
                raise UnknownModel(
                    f"no model of the name {name[:100]!r} is listed here: GET the list for those that are"
                )
            return _reply(exchange, one_model(family, name))
        case WrongMethod(allowed=allowed):
            raise MethodNotAllowed(f"this path takes {allowed} only", allowed=allowed)
        case WebSocketRefused():
            raise WebSocketsNotSupported(
                "WebSocket APIs (realtime, live) are not served: use the HTTP API of the same provider"
            )
        case UnknownEndpoint():
            raise EndpointNotAllowed(
                "the path is not served: it can be read in more than one way ('..', '//', an encoded slash or dot, "
                "';'). Write it plainly"
            )
        case other:
            raise AssertionError(other)


def allowed_models(runtime: Runtime, family: Family) -> list[str]:
    """The names that this team may ask for in a family's APIs."""
    return [name for name in runtime.routes.model_names(FAMILY_APIS[family]) if runtime.access.allows(name)]


def _reply(exchange: Exchange, body: bytes) -> web.Response:
    exchange.record.status = 200
    return web.Response(body=body, headers=answer_headers([("Content-Type", "application/json")], exchange.record))
