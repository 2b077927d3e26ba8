"""An embeddings request as the items that it consists of, and its answer as one vector for each. Pure.

Texts and lists of token ids are items; so a list of whole numbers is one, and a list of such lists is many. What is not
understood entirely is no batch, and is cached, if at all, as the whole that it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_sidecar.contract.names import API, RequestType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_sidecar.formats.base import ParsedRequest

MAX_ITEMS: Final = 2048
"""OpenAI takes no more in one request."""
_GEMINI_BATCH: Final = ":batchEmbedContents"
_VECTOR_MEMBERS: Final = frozenset({"object", "index", "embedding"})


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of one request, in the application's order."""

    api: API
    common: Mapping[str, Any]
    """The request without its items: what all of them share."""
    items: Sequence[Any]
    is_list: bool
    """False for OpenAI's single input."""

    def digests(self, common_digest: bytes) -> list[bytes]:
        """What each item means, by that of what they share. Items that mean the same have the same."""
        seed = b"embedding item " + common_digest
        return [sha256(seed + orjson.dumps(item, option=orjson.OPT_SORT_KEYS)).digest() for item in self.items]

    def document(self, positions: Sequence[int]) -> dict[str, Any]:
        """A request for some of the items."""
        items = [self.items[position] for position in positions]
        if self.api is API.GEMINI:
            return {**self.common, "requests": items}
        return {**self.common, "input": items if self.is_list else items[0]}


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a provider answered: a vector for each item that it was asked for, and the rest of its answer."""

    vectors: Sequence[Any]
    rest: Mapping[str, Any]


def read_batch(request: ParsedRequest) -> Batch | None:
    """The items of a request; None where it is no batch that is understood."""
    if request.call.type is not RequestType.EMBEDDINGS:
        return None
    document = request.document
    if request.call.api is API.OPENAI_EMBEDDINGS:
        common = {name: value for name, value in document.items() if name != "input"}
        items, is_list = _openai_items(document.get("input"))
    elif request.call.api is API.GEMINI and request.call.path.endswith(_GEMINI_BATCH):
        common = {name: value for name, value in document.items() if name != "requests"}
        items, is_list = _gemini_items(document.get("requests")), True
    else:
        return None
    return Batch(request.call.api, common, items, is_list) if 0 < len(items) <= MAX_ITEMS else None


def _openai_items(given: object) -> tuple[list[Any], bool]:
    if isinstance(given, str):
        return [given], False
    if not isinstance(given, list) or not given:
        return [], False
    if all(type(one) is int for one in given):
        return [given], False
    if all(isinstance(one, str) for one in given):
        return given, True
    if all(isinstance(one, list) and one and all(type(token) is int for token in one) for one in given):
        return given, True
    return [], False


def _gemini_items(given: object) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(one, dict) and one.get("content") for one in given):
        return []
    return given


def read_vectors(api: API, document: Any, *, count: int) -> Vectors | None:
    """The vectors in an answer, in the order of the items; None where there is anything that is not understood.

    There are servers that say null where they have no vector, with status 200.
    """
    if not isinstance(document, dict):
        return None
    name = "embeddings" if api is API.GEMINI else "data"
    given = document.get(name)
    if not isinstance(given, list) or len(given) != count or not all(isinstance(one, dict) for one in given):
        return None
    rest = {key: value for key, value in document.items() if key != name}
    if api is API.GEMINI:
        known = all(set(one) == {"values"} and _may_be_vector(one["values"]) for one in given)
        return Vectors([one["values"] for one in given], rest) if known else None
    if not all(type(one.get("index")) is int and set(one) <= _VECTOR_MEMBERS for one in given):
        return None
    if not all(_may_be_vector(one.get("embedding")) for one in given):
        return None
    in_order = sorted(given, key=itemgetter("index"))
    if [one["index"] for one in in_order] != list(range(count)):
        return None
    return Vectors([one["embedding"] for one in in_order], rest)


def _may_be_vector(value: object) -> bool:
    """Numbers, or their bytes in base64. Each number is looked at when it is stored: nobody waits for that."""
    return isinstance(value, list | str) and bool(value)


def write_answer(api: API, vectors: Sequence[bytes], rest: Mapping[str, Any]) -> bytes:
    """An answer of vectors, each as JSON, in the shape of its API."""
    fragments = [orjson.Fragment(vector) for vector in vectors]
    if api is API.GEMINI:
        return orjson.dumps({"embeddings": [{"values": one} for one in fragments], **rest})
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(fragments)]
    return orjson.dumps({"object": "list", **rest, "data": data})


def rest_of_hits(api: API, model: str) -> dict[str, Any]:
    """The rest of an answer for which no provider was asked: nothing was used."""
    return {} if api is API.GEMINI else {"model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
