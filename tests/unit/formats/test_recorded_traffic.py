"""Every recorded exchange with the real providers: read to the number, relayed to the byte, however it is split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest, StreamObserver, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.formats.registry import FORMATS
from tests.unit.formats.streams import play, split_at

pytestmark = pytest.mark.needs("recordings")

SHORT_STREAM_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded call of a known endpoint."""

    name: str
    request: ParsedRequest
    status: int
    answer: bytes

    def observe(self) -> StreamObserver:
        wire_format = FORMATS[self.request.call.api]
        return wire_format.observe_stream(self.request, hide_usage=False, max_frame_bytes=1 << 20)


@cache
def exchanges(directory: Path) -> list[Exchange]:
    return list(_read(directory))


@pytest.fixture(scope="module")
def recorded(recordings_directory: Path) -> list[Exchange]:
    return exchanges(recordings_directory)


def _read(directory: Path) -> Iterator[Exchange]:
    for file in sorted(directory.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            path, _, query = record["path"].partition("?")
            call = recognise(record["method"], path, query, {})
            if isinstance(call, Call):
                body = json.dumps(record["request"]).encode()
                request = FORMATS[call.api].parse_request(call, body)
                yield Exchange(record["id"], request, record["status"], record["response"].encode())


def _streams(recorded: list[Exchange]) -> list[Exchange]:
    return [one for one in recorded if one.request.stream and one.status == 200]


def told(api: API, documents: list[dict[str, Any]]) -> Usage | None:
    """The usage as a plain reading of all documents of an answer tells it."""
    if api is API.GEMINI:
        last = [one["usageMetadata"] for one in documents if "usageMetadata" in one]
        if not last:
            return None
        usage = last[-1]
        cached = usage.get("cachedContentTokenCount")
        return Usage(
            usage["promptTokenCount"] - (cached or 0) + usage.get("toolUsePromptTokenCount", 0),
            cached,
            None,
            usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0),
            usage.get("thoughtsTokenCount"),
        )
    if api is API.ANTHROPIC_MESSAGES:
        merged: dict[str, Any] = {}
        for one in documents:
            merged |= one.get("message", one).get("usage") or {}
        if not merged:
            return None
        return Usage(
            merged["input_tokens"],
            merged["cache_read_input_tokens"],
            merged["cache_creation_input_tokens"],
            merged["output_tokens"],
            merged.get("output_tokens_details", {}).get("thinking_tokens"),
        )
    last = [usage for one in documents if (usage := one.get("response", one).get("usage"))]
    if not last:
        return None
    usage = last[-1]
    kinds = ("input", "output") if api is API.OPENAI_RESPONSES else ("prompt", "completion")
    details = usage.get(f"{kinds[0]}_tokens_details", {})
    read, written = details.get("cached_tokens"), details.get("cache_write_tokens")
    return Usage(
        usage[f"{kinds[0]}_tokens"] - (read or 0) - (written or 0),
        read,
        written,
        0 if api is API.OPENAI_EMBEDDINGS else usage[f"{kinds[1]}_tokens"],
        usage.get(f"{kinds[1]}_tokens_details", {}).get("reasoning_tokens"),
    )


def stream_documents(stream: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_the_recordings_hold_every_api(recorded: list[Exchange]) -> None:
    assert {one.request.call.api for one in recorded} == set(API)
    assert len(recorded) > 440
    assert len(_streams(recorded)) == 32


def test_every_recorded_request_takes_another_model_and_nothing_else(recorded: list[Exchange]) -> None:
    for one in recorded:
        request = one.request
        splices = FORMATS[request.call.api].splices(request, model="another", ask_for_usage=False)

        changed = json.loads(apply_splices(request.body, splices))

        before, after = json.dumps(request.document), json.dumps(changed)
        if request.call.model is None:
            assert changed == {**request.document, "model": "another"}, one.name
        else:
            assert after == before.replace(f'"models/{request.model}"', '"models/another"'), one.name


def test_every_plain_answer_is_read_to_the_number_that_was_told(recorded: list[Exchange]) -> None:
    for one in recorded:
        call = one.request.call
        if one.request.stream or one.status != 200:
            continue
        usage = FORMATS[call.api].usage(call, one.answer)
        if call.type is RequestType.TOKEN_COUNT:
            assert usage == Usage(input_tokens=0, output_tokens=0), one.name
        elif call.type is RequestType.EMBEDDINGS and call.api is API.GEMINI:
            expected = json.loads(one.answer)["usageMetadata"]["promptTokenCount"]
            assert usage == Usage(input_tokens=expected, output_tokens=0), one.name
        else:
            assert usage == told(call.api, [json.loads(one.answer)]), one.name


def test_every_refused_call_tells_no_usage_and_is_not_complete(recorded: list[Exchange]) -> None:
    for one in recorded:
        if one.status >= 400:
            wire_format = FORMATS[one.request.call.api]
            assert wire_format.usage(one.request.call, one.answer) is None, one.name
            assert not wire_format.is_complete(one.request.call, one.answer), one.name


def _check(one: Exchange, chunks: list[bytes]) -> None:
    observer = one.observe()
    assert play(observer, chunks) == one.answer, one.name
    assert (observer.committed, observer.ended, observer.error) == (True, True, None), one.name
    assert observer.usage == told(one.request.call.api, stream_documents(one.answer)), one.name


def test_every_short_stream_survives_every_single_split(recorded: list[Exchange]) -> None:
    short = [one for one in _streams(recorded) if len(one.answer) <= SHORT_STREAM_BYTES]
    assert short
    for one in short:
        for cut in range(len(one.answer) + 1):
            _check(one, split_at(one.answer, [cut]))


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096, 1 << 20])
def test_every_stream_survives_reads_of_one_size(recorded: list[Exchange], size: int) -> None:
    for one in _streams(recorded):
        _check(one, [one.answer[start : start + size] for start in range(0, len(one.answer), size)])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_stream_survives_any_split(recorded: list[Exchange], data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(_streams(recorded)))
    cuts = data.draw(st.lists(st.integers(0, len(one.answer)), max_size=30))
    _check(one, split_at(one.answer, cuts))


def test_a_stream_cut_anywhere_before_its_end_is_seen_as_cut(recorded: list[Exchange]) -> None:
    for one in _streams(recorded):
        for cut in range(0, len(one.answer) - 40, max(1, len(one.answer) // 50)):
            observer = one.observe()
            relayed = play(observer, [one.answer[:cut]])
            assert one.answer.startswith(relayed), one.name
            last_frame = one.answer[len(relayed) :].strip()
            assert not observer.ended or not last_frame or b"finishReason" in relayed or b"[DONE]" in relayed, one.name
