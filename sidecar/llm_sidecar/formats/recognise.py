"""Which endpoint a request is for, from method, path, query and headers alone.

Three SDKs share one port without prefixes of their own, so the path decides and, where they collide
(`/v1/models`), the headers that only one of them sends. A path is never normalised: whatever two parsers could read
differently is an unknown endpoint, because a path that we understood otherwise than the provider would be a way
around `passthroughPaths`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call


class Family(StrEnum):
    """The SDK that speaks: decides the shape of model lists and of errors outside any known endpoint."""

    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    GEMINI = "Gemini"


@dataclass(frozen=True, slots=True)
class ModelList:
    """`GET /v1/models` or `/v1beta/models`: answered from the configuration (see `model_lists.py`)."""

    family: Family


@dataclass(frozen=True, slots=True)
class ModelGet:
    """One model by its name, percent-decoded; only ever compared with configured names, never sent anywhere."""

    family: Family
    model: str


@dataclass(frozen=True, slots=True)
class Passthrough:
    """A well-formed path that is none of ours: the provider's `passthroughPaths` say whether it may pass."""

    path: str
    """As it came: what `passthroughPaths` and error messages name."""
    upstream_path: str
    """What follows the prefix that this SDK puts into its base URL, as in `Call.path`."""
    family: Family


@dataclass(frozen=True, slots=True)
class WebSocketRefused:
    """A WebSocket handshake (realtime APIs), which this proxy does not carry."""

    family: Family


@dataclass(frozen=True, slots=True)
class UnknownEndpoint:
    """A path that could be read in two ways (`..`, `//`, an encoded slash, …), or is no path at all."""

    family: Family


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """A known endpoint, asked with another method."""

    allowed: str
    family: Family


Recognised = Call | ModelList | ModelGet | Passthrough | WebSocketRefused | UnknownEndpoint | WrongMethod

_OPENAI_PREFIX: Final = "/v1"

_EXACT: Final[Mapping[str, Call]] = {
    "/v1/chat/completions": Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions"),
    "/v1/responses": Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses"),
    "/v1/responses/input_tokens": Call(
        api=API.OPENAI_RESPONSES, type=RequestType.TOKEN_COUNT, path="/responses/input_tokens"
    ),
    "/v1/embeddings": Call(api=API.OPENAI_EMBEDDINGS, type=RequestType.EMBEDDINGS, path="/embeddings"),
    "/v1/messages": Call(api=API.ANTHROPIC_MESSAGES, type=RequestType.GENERATION, path="/v1/messages"),
    "/v1/messages/count_tokens": Call(
        api=API.ANTHROPIC_MESSAGES, type=RequestType.TOKEN_COUNT, path="/v1/messages/count_tokens"
    ),
}

_GEMINI_VERBS: Final[Mapping[str, RequestType]] = {
    "generateContent": RequestType.GENERATION,
    "streamGenerateContent": RequestType.GENERATION,
    "countTokens": RequestType.TOKEN_COUNT,
    "embedContent": RequestType.EMBEDDINGS,
    "batchEmbedContents": RequestType.EMBEDDINGS,
}

_GEMINI_CALL: Final = re.compile(r"/v1(?:beta)?/models/([^/:]+):([A-Za-z]+)")
_MODEL_GET: Final = re.compile(r"/v1(?:beta)?/models/(.+)")
# What a model in a Gemini path may consist of once decoded: nothing that could end the path segment or start another.
_PLAIN_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~@+-]*")
# Printable ASCII in single segments. Encoded where it stands for itself (`%61`), a dot, slash, colon, percent sign,
# backslash or control character is how one path hides another; `;`, `?`, `#` and a backslash split paths differently
# from server to server. Bytes beyond ASCII (`%C0%AE`) are no part of any of these APIs.
_SEGMENT: Final = (
    r"/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?:2[0-2467-9A-Ca-c]|3[CcDdEe]|40|5[BbDdEe]|60|7[B-Db-d]))+"
)
_PLAIN_PATH: Final = re.compile(f"(?:{_SEGMENT})+")
# A model name may hold a slash or a colon (`org/model`, `ft:gpt`), which SDKs encode; `ModelGet` says why that is safe.
_PLAIN_MODEL_PATH: Final = re.compile(f"(?:{_SEGMENT.replace('|%(?:', '|%2[Ff]|%3[Aa]|%(?:')})+")


def recognise(method: str, path: str, query: str, headers: Mapping[str, str]) -> Recognised:
    """Say what a request asks for.

    `path` is the raw path as it stood in the request line, still percent-encoded, `query` what followed the `?`.
    `headers` is looked up by lower-case names only, so any case-insensitive mapping (or a lower-cased one) will do.
    """
    if method == "POST":
        call = _EXACT.get(path)
        if call is not None:
            return call
    elif method == "GET" and "websocket" in headers.get("upgrade", "").lower():
        return WebSocketRefused(_family(path, query, headers))
    return _recognise_rarer(method, path, query, headers)


def _recognise_rarer(method: str, path: str, query: str, headers: Mapping[str, str]) -> Recognised:
    gemini = _GEMINI_CALL.fullmatch(path)
    if gemini is not None and gemini[2] in _GEMINI_VERBS:
        return _gemini_call(method, path, query, gemini[1], gemini[2])
    family = _family(path, query, headers)
    if path in _EXACT:
        return WrongMethod("POST", family)
    if path in ("/v1/models", "/v1beta/models"):
        return ModelList(family) if method == "GET" else WrongMethod("GET", family)
    one_model = _MODEL_GET.fullmatch(path)
    # Behind a colon stands a Gemini verb that we do not know; elsewhere it is a part of a name (`ft:gpt-5-mini`).
    if one_model is not None and not (family is Family.GEMINI and ":" in path):
        return _model_get(method, path, one_model[1], family)
    if _PLAIN_PATH.fullmatch(path) is None:
        return UnknownEndpoint(family)
    if family is Family.OPENAI and path.startswith(f"{_OPENAI_PREFIX}/"):
        return Passthrough(path, upstream_path=path.removeprefix(_OPENAI_PREFIX), family=family)
    return Passthrough(path, upstream_path=path, family=family)


def _gemini_call(method: str, path: str, query: str, encoded_model: str, verb: str) -> Recognised:
    model = unquote(encoded_model, errors="replace")
    if _PLAIN_MODEL.fullmatch(model) is None:
        return UnknownEndpoint(Family.GEMINI)
    if method != "POST":
        return WrongMethod("POST", Family.GEMINI)
    stream = verb == "streamGenerateContent"
    return Call(
        api=API.GEMINI,
        type=_GEMINI_VERBS[verb],
        path=path,
        model=model,
        stream=stream,
        stream_is_json_array=stream and not _asks_for_events(query),
    )


def _model_get(method: str, path: str, encoded_model: str, family: Family) -> Recognised:
    # Google's names hold neither: there an encoded colon could only hide a verb.
    plain = _PLAIN_PATH if family is Family.GEMINI else _PLAIN_MODEL_PATH
    if plain.fullmatch(path) is None:
        return UnknownEndpoint(family)
    if method != "GET":
        return WrongMethod("GET", family)
    return ModelGet(family, unquote(encoded_model, errors="replace"))


def _asks_for_events(query: str) -> bool:
    # `$alt` is the system parameter's long spelling; Google's servers take both.
    return query == "alt=sse" or any(name in ("alt", "$alt") and value == "sse" for name, value in parse_qsl(query))


def _family(path: str, query: str, headers: Mapping[str, str]) -> Family:
    if "anthropic-version" in headers or path.startswith("/v1/messages"):
        return Family.ANTHROPIC
    if "x-goog-api-key" in headers or path.startswith(("/v1beta/", "/upload/")):
        return Family.GEMINI
    if query and any(name == "key" for name, _ in parse_qsl(query, keep_blank_values=True)):
        return Family.GEMINI
    return Family.OPENAI
