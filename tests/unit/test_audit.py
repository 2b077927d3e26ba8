"""One line per request, whole, without content; a reader who stops reading stops nobody else."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from llm_sidecar.audit import MAX_PENDING_BYTES, AuditLog, audit_line
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Usage
from llm_sidecar.record import Attempt, RequestRecord, Skipped


def test_a_line_tells_who_what_where_and_how_much() -> None:
    record = RequestRecord("id-1", "payments/payments", started=1.0)
    record.api, record.type, record.model, record.provider = API.OPENAI_CHAT, RequestType.GENERATION, "m", "p"
    record.status, record.stream, record.first_content = 200, True, 1.25
    record.usage, record.usage_source, record.charged_tokens = Usage(7, 0, None, 3, 1), "measured", 10
    record.attempts = [
        Attempt("q", "server", 500, 12.34, "it answered with status 500", "n"),
        Attempt("p", "answered", 200, 1, "", "m", 17.04),
    ]
    record.skipped = [Skipped("r", "o", "circuit_open")]
    record.dropped, record.cost_nano_usd = ["logprobs"], 12
    record.sdk_retry_count, record.client_gone, record.interrupted = 2, True, True
    line = json.loads(audit_line(record, 2.5))
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "request",
        "request_id": "id-1",
        "team": "payments/payments",
        "api": "OpenAIChat",
        "type": "generation",
        "model": "m",
        "provider": "p",
        "stream": True,
        "status": 200,
        "duration_ms": 1500.0,
        "cache": None,
        "usage": {
            "input_tokens": 7,
            "cache_read_tokens": 0,
            "cache_write_tokens": None,
            "output_tokens": 3,
            "reasoning_tokens": 1,
        },
        "usage_source": "measured",
        "charged_tokens": 10,
        "time_to_first_token_ms": 250.0,
        "attempts": [
            {"provider": "q", "model": "n", "outcome": "server", "status": 500, "ms": 12.3},
            {"provider": "p", "model": "m", "outcome": "answered", "status": 200, "ms": 1, "waited_ms": 17.0},
        ],
        "skipped": [{"provider": "r", "model": "o", "reason": "circuit_open"}],
        "dropped": ["logprobs"],
        "cost_nano_usd": 12,
        "sdk_retry_count": 2,
        "client_gone": True,
        "interrupted": True,
    }


def test_what_did_not_happen_is_left_out() -> None:
    line = json.loads(audit_line(RequestRecord("id", "none"), 0))
    happened = {"attempts", "skipped", "dropped", "cost_nano_usd", "error", "client_gone", "interrupted"}
    assert not {*happened, "time_to_first_token_ms"} & line.keys()


def test_an_error_is_told_by_its_code() -> None:
    record = RequestRecord("id", "none")
    record.error_code = "team_quota_exceeded"
    assert json.loads(audit_line(record, 0))["error"] == "team_quota_exceeded"


@pytest.mark.parametrize("turns", range(6))
async def test_every_line_is_written_before_the_end_whenever_it_comes(tmp_path: Path, turns: int) -> None:
    """Also where a write is just under way, or waits for its thread."""
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    log = AuditLog(descriptor)
    log.write(b"1\n")
    pending = log._writing
    assert pending is not None
    while log._pending:  # noqa: ASYNC110 - until the lines are handed to the thread
        await asyncio.sleep(0)
    log.write(b"2\n")
    for _ in range(turns):
        await asyncio.sleep(0)
    await log.close()
    os.close(descriptor)
    assert path.read_bytes() == b"1\n2\n"


async def test_a_reader_who_stops_reading_costs_lines_and_no_time() -> None:
    changes: list[str] = []
    reader, writer = os.pipe()
    log = AuditLog(writer, on_change=changes.append)
    line = b"x" * 1000 + b"\n"
    for _ in range(3 * MAX_PENDING_BYTES // len(line)):
        log.write(line)
    assert log.dropped_lines > 0
    assert changes == ["losing"]
    async with asyncio.timeout(2):
        await log.close(timeout_seconds=0.1)
    thread = log._thread
    assert thread is not None
    assert thread.is_alive()
    assert thread.daemon, "the interpreter would wait for it at its exit"
    os.close(reader)  # the thread's write fails, and it ends
    thread.join(2)
    assert not thread.is_alive()
    os.close(writer)


def test_a_write_that_ends_after_the_loop_did_is_no_error() -> None:
    """The process is just ending; the thread has nobody to tell."""
    reader, writer = os.pipe()
    log = AuditLog(writer)

    async def write_and_leave() -> None:
        log.write(b"x" * MAX_PENDING_BYTES)
        await log.close(timeout_seconds=0.1)

    with asyncio.Runner() as runner:
        runner.run(write_and_leave())
    thread = log._thread
    assert thread is not None
    assert thread.is_alive()
    os.close(reader)
    thread.join(2)
    assert not thread.is_alive()
    os.close(writer)


async def test_a_closed_reader_is_counted_and_no_error() -> None:
    changes: list[str] = []
    reader, writer = os.pipe()
    os.close(reader)
    log = AuditLog(writer, on_change=changes.append)
    log.write(b"lost\n")
    await log.close()
    os.close(writer)
    assert (log.dropped_lines, changes) == (1, ["losing"])
