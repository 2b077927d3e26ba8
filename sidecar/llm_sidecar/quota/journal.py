"""Settlements that the store has not heard of, on disk: a container that is restarted meanwhile tells them later.

Written only while the store is away, a line each, in the order in which they are told to the store. What does not fit
into memory waits here alone, and is read when its turn comes. How far the store has confirmed is written between the
lines, so a later process begins behind it; the file goes with the last of them. Telling one twice within an hour is
harmless, for the store settles by id.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from llm_sidecar.quota.settlement import Settlement, SettleMode

logger = logging.getLogger(__name__)

MAX_JOURNAL_BYTES: Final = 8 * 1024 * 1024
"""Beyond it, what is not written lives in memory alone."""
_USUAL_LINE_BYTES: Final = 4096
_SETTLEMENT: Final = b"["
"""How a settlement's line begins. Any other is a number: what is before that byte of the file is settled."""


class Journal:
    """A file of settlements. Its trouble is logged once, and never a request's.

    Positions are counted from the first byte that was ever in the file: `_cut` of them are gone.
    """

    def __init__(self, path: Path) -> None:
        self.waiting = 0
        """Settlements that are here alone, for `take`."""
        self._path = path
        self._file: int | None = None
        self._cut = 0
        self._end = 0
        self._read_to = 0
        """What is before it is in memory, or settled."""
        self._settled_to = 0
        self._last_end = 0
        """Of the last settlement's line that is known to be readable."""
        self._is_broken = False

    def resume(self) -> None:
        """Let what a process before this one has left wait here. A line that was cut by its end is cut off."""
        try:
            if not self._path.exists():
                return
            starts: list[int] = []
            settled_to = end = 0
            with self._path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    if line.startswith(_SETTLEMENT):
                        starts.append(end)
                    elif line[:-1].isdigit():
                        settled_to = int(line)
                    end += len(line)
            os.truncate(self._path, end)
        except OSError as error:
            self._complain(error)
            return
        self._end = end
        self._read_to = self._settled_to = settled_to
        self.waiting = sum(start >= settled_to for start in starts)
        if not self.waiting:
            self._empty()

    def keep(self, settlement: Settlement, *, aside: bool = False) -> bool:
        """Write one; False where that is impossible. `aside`: it is to wait here alone, as all that come after it."""
        line = orjson.dumps([settlement.request_id, settlement.mode, settlement.amounts, settlement.words]) + b"\n"
        if self._is_broken or not self._has_room(len(line)) or not self._append(line):
            return False
        settlement.journal_end = self._last_end = self._end
        if aside:
            self.waiting += 1
        else:
            self._read_to = self._end
        return True

    def take(self, count: int) -> list[Settlement]:
        """The next of those that wait here. Those that cannot be read wait no longer."""
        taken: list[Settlement] = []
        try:
            while self.waiting and len(taken) < count:
                line = self._next_line()
                if not line:
                    self.waiting = 0
                elif line.startswith(_SETTLEMENT):
                    self.waiting -= 1
                    settlement = _parsed(line)
                    if settlement is not None:
                        settlement.journal_end = self._read_to
                        self._last_end = max(self._last_end, self._read_to)
                        taken.append(settlement)
        except OSError as error:
            self._complain(error)
            self.waiting = 0
        if not taken:
            self._mark()
        return taken

    def settled(self, settlements: Iterable[Settlement]) -> None:
        """The store has these, or nobody will tell it any more. They come in the order in which they were written."""
        settled_to = max((one.journal_end for one in settlements), default=0)
        if settled_to > self._settled_to:
            self._settled_to = settled_to
            self._mark()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _mark(self) -> None:
        """Write how far all is settled, or empty the file."""
        if self.waiting or self._settled_to < self._last_end:
            if self._settled_to > self._cut:
                self._append(b"%d\n" % (self._settled_to - self._cut))
        else:
            self._empty()

    def _has_room(self, size: int) -> bool:
        if self._end - self._cut + size <= MAX_JOURNAL_BYTES:
            return True
        if self._settled_to - self._cut < MAX_JOURNAL_BYTES // 2:
            return False
        self._cut_off_settled()
        return not self._is_broken

    def _cut_off_settled(self) -> None:
        """Write the rest into a new file, and put that in place of the old one."""
        fresh = self._path.with_suffix(".fresh")
        try:
            self.close()
            with self._path.open("rb") as old:
                old.seek(self._settled_to - self._cut)
                rest = old.read()
            # A position in the old file says nothing in the new one.
            lines = (
                line if line.startswith(_SETTLEMENT) else b" " * (len(line) - 1) + b"\n"
                for line in rest.splitlines(keepends=True)
            )
            fresh.write_bytes(b"".join(lines))
            fresh.replace(self._path)
        except OSError as error:
            self._complain(error)
            return
        self._cut = self._settled_to

    def _append(self, line: bytes) -> bool:
        try:
            file = self._open()
            is_whole = os.write(file, line) == len(line)
            if not is_whole:
                os.ftruncate(file, self._end - self._cut)  # half a line is none
            self._end = self._cut + os.lseek(file, 0, os.SEEK_END)
        except OSError as error:
            self._complain(error)
            return False
        if not is_whole:
            self._complain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return is_whole

    def _next_line(self) -> bytes:
        file, size = self._open(), _USUAL_LINE_BYTES
        while True:
            data = os.pread(file, size, self._read_to - self._cut)
            line, newline, _ = data.partition(b"\n")
            if newline:
                self._read_to += len(line) + 1
                return line + newline
            if len(data) < size:
                return b""
            size *= 2

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return self._file

    def _empty(self) -> None:
        self.close()
        self._cut = self._end = self._read_to = self._settled_to = self._last_end = 0
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._is_broken:
            self._is_broken = True
            logger.warning(
                "the journal of settlements cannot be used (%s): they are kept in memory alone", error.strerror
            )


def _parsed(line: bytes) -> Settlement | None:
    try:
        request_id, mode, amounts, words = orjson.loads(line)
        return Settlement(
            request_id=request_id,
            mode=SettleMode(mode),
            amounts=tuple(
                (counter, amount, rest, limit, percents) for counter, amount, rest, limit, percents in amounts
            ),
            words=tuple(words),
        )
    except (ValueError, TypeError):
        return None
