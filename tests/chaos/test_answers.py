"""The judge of the chaos: what it must not let pass."""

from __future__ import annotations

import orjson
import pytest
from multidict import CIMultiDict

from tests.chaos.answers import NoProperEnd, check_error, text_of
from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_traffic import CALLS

CHUNK = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"m","type":"t","param":null,"code":"c"}}\n\n'
FOREIGN = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


def reply(body: bytes, status: int = 200) -> Reply:
    return Reply(status=status, headers=CIMultiDict(), body=body)


def test_a_whole_stream_is_complete_and_one_with_an_error_at_its_end_is_not() -> None:
    assert text_of("chat-stream", reply(CHUNK + CHUNK + DONE)) == "aa"
    assert text_of("chat-stream", reply(CHUNK + ERROR)) is None
    check_error(CALLS["chat-stream"], reply(CHUNK + ERROR))


@pytest.mark.parametrize("body", [CHUNK, b"", CHUNK + b'data: {"err'], ids=["unfinished", "empty", "half a frame"])
def test_a_stream_that_just_ends_is_no_proper_error(body: bytes) -> None:
    with pytest.raises(NoProperEnd):
        check_error(CALLS["chat-stream"], reply(body))


@pytest.mark.parametrize(
    "body",
    [CHUNK + DONE + DONE, CHUNK + DONE + ERROR, CHUNK + DONE + CHUNK, FOREIGN + CHUNK + DONE],
    ids=["two ends", "an error behind the end", "content behind the end", "another API's frame"],
)
def test_a_stream_that_is_not_one_answer_is_not_let_pass(body: bytes) -> None:
    with pytest.raises(NoProperEnd):
        text_of("chat-stream", reply(body))


def test_another_apis_error_is_no_proper_error() -> None:
    body = orjson.dumps({"type": "error", "error": {"type": "api_error", "message": "m"}})

    check_error(CALLS["messages"], reply(body, 500))
    with pytest.raises(NoProperEnd):
        check_error(CALLS["chat"], reply(body, 500))
