"""A stream is kept while it passes, as long as there is room, and never at the cost of what passes."""

from __future__ import annotations

import orjson
import pytest

from llm_sidecar.budget import BufferBudget
from llm_sidecar.cache import recording
from llm_sidecar.cache.recording import RecordingObserver
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS

CALL = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/p")


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


CHUNKS = (
    chunk({"role": "assistant", "content": "po"}),
    chunk({"content": "ng"}),
    chunk({}, "stop"),
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
)


def observer(*, hide_usage: bool = False, limit_bytes: int = 10_000) -> tuple[RecordingObserver, BufferBudget]:
    budget = BufferBudget(limit_bytes)
    request = FORMATS[CALL.api].parse_request(CALL, b'{"model":"m","stream":true}')
    watched = FORMATS[CALL.api].observe_stream(request, hide_usage=hide_usage, max_frame_bytes=1000)
    return RecordingObserver(watched, budget.hold(), call=CALL, bring_back=None), budget


def content(answer: bytes | None) -> str:
    assert answer is not None
    told: str = orjson.loads(answer)["choices"][0]["message"]["content"]
    return told


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_whole_stream_is_an_answer_however_it_is_cut(step: int) -> None:
    recorded, _ = observer()
    stream = b"".join(CHUNKS)
    relayed = b"".join(recorded.feed(stream[at : at + step]) for at in range(0, len(stream), step))
    assert relayed + recorded.finish() == stream
    assert recorded.is_whole
    assert content(recorded.plain_answer()) == "pong"


def test_what_is_hidden_from_the_application_is_a_part_of_the_answer() -> None:
    recorded, _ = observer(hide_usage=True)
    assert b"_tokens" not in b"".join(map(recorded.feed, CHUNKS))
    assert b'"total_tokens":2' in (recorded.plain_answer() or b"")


@pytest.mark.parametrize("count", range(len(CHUNKS)))
def test_a_stream_without_its_end_is_none(count: int) -> None:
    recorded, _ = observer()
    for each in CHUNKS[:count]:
        recorded.feed(each)
    recorded.finish()
    assert not recorded.is_whole
    assert recorded.plain_answer() is None


def test_a_stream_with_an_error_in_it_is_none() -> None:
    recorded, _ = observer()
    for each in (*CHUNKS[:2], b'data: {"error":{"message":"x"}}\n\n', *CHUNKS[2:]):
        recorded.feed(each)
    assert recorded.plain_answer() is None


def test_what_is_kept_is_counted() -> None:
    recorded, budget = observer()
    recorded.feed(CHUNKS[0])
    assert budget.held_bytes == len(CHUNKS[0])


def test_a_stream_for_which_there_is_no_room_passes_all_the_same() -> None:
    recorded, _ = observer(limit_bytes=100)
    assert b"".join(map(recorded.feed, CHUNKS)) == b"".join(CHUNKS)
    assert recorded.ended
    assert recorded.plain_answer() is None


def test_a_stream_that_is_too_long_to_keep_passes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_STREAM_BYTES", 200)
    recorded, _ = observer()
    assert b"".join(map(recorded.feed, CHUNKS)) == b"".join(CHUNKS)
    assert (recorded.committed, recorded.ended, recorded.error) == (True, True, None)
    assert recorded.plain_answer() is None
