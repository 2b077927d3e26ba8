"""Settlements that the store has not heard of, on disk: a container that is restarted meanwhile tells them later.

Written only while the store is away, a line each; emptied once the store has confirmed all. Telling one twice is
harmless, for the store settles by id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import orjson

from llm_sidecar.quota.settlement import Settlement, SettleMode

logger = logging.getLogger(__name__)

MAX_JOURNAL_BYTES: Final = 8 * 1024 * 1024
"""Beyond it, what is not written lives in memory alone."""


class Journal:
    """A file of settlements. Its trouble is logged once, and never a request's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._written_bytes = 0
        self._waiting: set[str] = set()
        self._broken = False

    def replay(self) -> list[Settlement]:
        """What a process before this one has left. Lines that were cut by its end are skipped."""
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            self._complain(error)
            return []
        settlements = list(_read(lines))
        self._waiting.update(one.request_id for one in settlements)
        self._written_bytes = sum(len(line) + 1 for line in lines)
        return settlements

    def keep(self, settlement: Settlement) -> None:
        """Write one."""
        line = orjson.dumps([settlement.request_id, settlement.mode, settlement.amounts, settlement.words]) + b"\n"
        if self._broken or self._written_bytes + len(line) > MAX_JOURNAL_BYTES:
            return
        try:
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)
        except OSError as error:
            self._complain(error)
            return
        self._written_bytes += len(line)
        self._waiting.add(settlement.request_id)

    def settled(self, request_ids: Iterable[str]) -> None:
        """The store has these."""
        if not self._waiting:
            return
        self._waiting.difference_update(request_ids)
        if not self._waiting:
            self._empty()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _empty(self) -> None:
        self.close()
        self._written_bytes = 0
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            logger.warning(
                "the journal of settlements cannot be used (%s): they are kept in memory alone", error.strerror
            )


def _read(lines: Iterable[bytes]) -> Iterator[Settlement]:
    for line in lines:
        try:
            request_id, mode, amounts, words = orjson.loads(line)
            yield Settlement(
                request_id=request_id,
                mode=SettleMode(mode),
                amounts=tuple(
                    (counter, amount, rest, limit, percents) for counter, amount, rest, limit, percents in amounts
                ),
                words=tuple(words),
            )
        except (ValueError, TypeError):
            continue
