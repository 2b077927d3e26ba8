"""One line of JSON per request, to standard output: who, what, where, how long, how many tokens. Never any content.

Lines are gathered and written by a thread, so that a reader of the log who stops reading never stops a request. What
cannot be written is dropped and counted, once a bound is reached. The thread is a daemon, unlike an executor's, for
which the interpreter waits at its exit: who reads no more would keep the process from ending.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

if TYPE_CHECKING:
    from llm_sidecar.record import Attempt, RequestRecord

GATHER_SECONDS: Final = 0.05
MAX_PENDING_BYTES: Final = 1024 * 1024

Change = Literal["losing", "complete"]
_Order = tuple[bytearray, asyncio.Future[bool]]


def audit_line(record: RequestRecord, now: float) -> bytes:
    """The line for a finished request; `now` is on the record's clock."""
    fields: dict[str, Any] = {
        "time": _timestamp(time.time()),
        "event": "request",
        "request_id": record.request_id,
        "team": record.team,
        "api": record.api,
        "type": record.type,
        "model": record.model,
        "provider": record.provider,
        "stream": record.stream,
        "status": record.status,
        "duration_ms": round((now - record.started) * 1000, 1),
        "cache": record.cache,
        "usage": record.usage,
        "usage_source": record.usage_source,
        "charged_tokens": record.charged_tokens,
    }
    _add_what_happened(fields, record)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _add_what_happened(fields: dict[str, Any], record: RequestRecord) -> None:
    """What only some requests have."""
    if record.first_content is not None:
        fields["time_to_first_token_ms"] = round((record.first_content - record.started) * 1000, 1)
    if record.cache_key:
        fields["cache_key"] = record.cache_key
    if record.error_code:
        fields["error"] = record.error_code
    if record.attempts:
        fields["attempts"] = [_attempt(one) for one in record.attempts]
    if record.skipped:
        fields["skipped"] = [
            {"provider": one.provider, "model": one.model, "reason": one.reason} for one in record.skipped
        ]
    if record.quota_remaining or record.refused_limit or record.downgraded_from:
        _add_quota(fields, record)
    if record.cost_nano_usd is not None:
        fields["cost_nano_usd"] = record.cost_nano_usd
    if (
        record.dropped
        or record.output_clamped_tokens
        or record.prompt_cache_marks
        or record.sdk_retry_count
        or record.client_gone
        or record.interrupted
    ):
        _add_rarities(fields, record)


def _add_rarities(fields: dict[str, Any], record: RequestRecord) -> None:
    """What few requests have."""
    further = (
        ("dropped", record.dropped),
        ("output_clamped_tokens", record.output_clamped_tokens),
        ("prompt_cache_marks", record.prompt_cache_marks),
        ("sdk_retry_count", record.sdk_retry_count),
        ("client_gone", record.client_gone),
        ("interrupted", record.interrupted),
    )
    fields |= {name: value for name, value in further if value}


def _add_quota(fields: dict[str, Any], record: RequestRecord) -> None:
    """What the team's limits said, where they said anything."""
    for name in ("quota_remaining", "refused_limit", "shadow_refused", "unbounded", "downgraded_from"):
        if value := getattr(record, name):
            fields[name] = value


def _attempt(one: Attempt) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "provider": one.provider,
        "model": one.model,
        "outcome": one.outcome,
        "status": one.status,
        "ms": round(one.milliseconds, 1),
    }
    if one.waited_milliseconds:
        fields["waited_ms"] = round(one.waited_milliseconds, 1)
    return fields


def _timestamp(unix_seconds: float) -> str:
    seconds, milliseconds = divmod(int(unix_seconds * 1000), 1000)
    return f"{_whole_seconds(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)
def _whole_seconds(unix_seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_seconds))


def _set(written: asyncio.Future[bool], *, result: bool) -> None:
    if not written.done():
        written.set_result(result)


class AuditLog:
    """Gathers lines and writes them, off the event loop, to a file descriptor."""

    def __init__(self, descriptor: int, *, on_change: Callable[[Change], None] = lambda _change: None) -> None:
        """`on_change` hears when lines begin to be lost, and when they are written again."""
        self._descriptor = descriptor
        self._on_change = on_change
        self._complete = True
        # One buffer rather than many lines: an encoder's result may sit in a block several times its own size.
        self._pending = bytearray()
        self._pending_lines = 0
        self._writing: asyncio.Task[None] | None = None
        self._under_way: asyncio.Future[bool] | None = None
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.dropped_lines = 0

    def write(self, line: bytes) -> None:
        """Take a line; it is written within a moment."""
        if len(self._pending) + len(line) > MAX_PENDING_BYTES:
            self._dropped()
            return
        self._pending += line
        self._pending_lines += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    async def _write_soon(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(GATHER_SECONDS)
                await self._write_pending()
        finally:
            self._writing = None

    async def _write_pending(self) -> None:
        data, self._pending = self._pending, bytearray()
        lines, self._pending_lines = self._pending_lines, 0
        if not lines:
            return
        self._under_way = self._order(data)
        written = await asyncio.shield(self._under_way)
        if not written:
            self._dropped(lines)
        elif not self._complete:
            self._complete = True
            self._on_change("complete")

    def _order(self, data: bytearray) -> asyncio.Future[bool]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="audit-log", daemon=True)
            self._thread.start()
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._orders.put((data, written))
        return written

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            data, written = order
            result = self._write_all(data)
            try:
                written.get_loop().call_soon_threadsafe(partial(_set, written, result=result))
            except RuntimeError:  # the loop is closed: nobody waits for this write any more
                return

    def _write_all(self, data: bytearray) -> bool:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:  # nobody reads any more: the requests go on
            return False
        return True

    def _dropped(self, lines: int = 1) -> None:
        self.dropped_lines += lines
        if self._complete:
            self._complete = False
            self._on_change("losing")

    async def close(self, *, timeout_seconds: float = 2) -> None:
        """Write what is left, unless nobody reads."""
        if self._writing is not None:
            self._writing.cancel()
        try:
            async with asyncio.timeout(timeout_seconds):
                if self._under_way is not None:
                    await asyncio.shield(self._under_way)
                await self._write_pending()
        except TimeoutError:
            self._dropped()
        self._orders.put(None)
