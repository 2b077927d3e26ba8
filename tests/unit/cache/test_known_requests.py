"""The same bytes are read once; anything else that came over the wire makes another request of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import orjson
import pytest

from llm_sidecar.cache.known_requests import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_REQUESTS, KnownRequests
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.registry import FORMATS

CALL: Final = Call(API.OPENAI_CHAT, RequestType.GENERATION, "/chat/completions")
HEADERS: Final = [("Content-Type", "application/json")]


def request(text: str = "ping", **members: object) -> ParsedRequest:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **members})
    return FORMATS[API.OPENAI_CHAT].parse_request(CALL, body)


def test_the_same_request_is_known() -> None:
    known, asked = KnownRequests(), request()

    known.keep(asked, b"digest", "", HEADERS)

    assert known.find(CALL, bytes(bytearray(asked.body)), "", list(HEADERS)) == (asked, b"digest")


def test_another_body_query_header_or_path_is_not() -> None:
    known, asked = KnownRequests(), request()

    known.keep(asked, b"digest", "", HEADERS)

    assert known.find(CALL, request("pong").body, "", HEADERS) is None
    assert known.find(CALL, asked.body, "beta=true", HEADERS) is None
    assert known.find(CALL, asked.body, "", [*HEADERS, ("anthropic-beta", "x")]) is None
    assert known.find(replace(CALL, path="/other"), asked.body, "", HEADERS) is None


def test_the_one_that_was_learned_first_is_forgotten_first() -> None:
    known, requests = KnownRequests(), [request(str(number)) for number in range(MAX_REQUESTS + 1)]

    for one in requests:
        known.keep(one, b"digest", "", HEADERS)

    assert known.find(CALL, requests[0].body, "", HEADERS) is None
    assert all(known.find(CALL, one.body, "", HEADERS) for one in requests[1:])


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        (request("x" * MAX_BODY_BYTES), HEADERS),
        (request(metadata=[[] for _ in range(1000)]), HEADERS),
        (request(), [("x-state", "x" * MAX_HEADER_BYTES)]),
    ],
    ids=["long", "large once it is parsed", "headers"],
)
def test_what_would_take_much_memory_is_not_remembered(asked: ParsedRequest, headers: list[tuple[str, str]]) -> None:
    known = KnownRequests()

    known.keep(asked, b"digest", "", headers)

    assert known.find(CALL, asked.body, "", headers) is None
