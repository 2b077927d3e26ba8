"""Storing answers after they were given: beside the requests, so that no application waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from llm_sidecar.cache.recording import RecordingObserver
from llm_sidecar.caching import JSON

if TYPE_CHECKING:
    from llm_sidecar.caching import CacheTurn
    from llm_sidecar.failover.attempt import OpenStream, PlainAnswer
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import Usage


class Keeping:
    """Stores answers without keeping their applications waiting."""

    def __init__(self) -> None:
        self._storing: set[asyncio.Task[bool]] = set()

    def plain(self, turn: CacheTurn, candidate: Candidate, answer: PlainAnswer) -> asyncio.Task[bool] | None:
        """Store a plain answer, under the one who gave it; None where it may not be."""
        if not turn.may_be_kept or answer.status != 200 or turn.seen(candidate) is None:
            return None
        content_type = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
        return self._start(turn, candidate, content_type, answer.body, answer.usage)

    def stream(self, turn: CacheTurn, candidate: Candidate, opened: OpenStream) -> asyncio.Task[bool] | None:
        """Store the plain answer that a stream was, once it has ended; None where it may not be."""
        observer = opened.observer
        if opened.status != 200 or not isinstance(observer, RecordingObserver) or not observer.is_whole:
            return None
        return self._start(turn, candidate, JSON, observer, observer.usage)

    def _start(
        self,
        turn: CacheTurn,
        candidate: Candidate,
        content_type: str,
        made: bytes | RecordingObserver,
        usage: Usage | None,
    ) -> asyncio.Task[bool]:
        turn.tell_key(candidate)
        return self.start(turn.keep(candidate, content_type, made, usage))

    def start(self, storing: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        """Let something be stored."""
        task = asyncio.get_running_loop().create_task(storing)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)
