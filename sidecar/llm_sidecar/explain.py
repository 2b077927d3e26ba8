"""What became of the last requests, for who asks by id: `GET /_llm-sidecar/explain/REQUEST-ID`.

Their audit lines are kept, which hold no content: route, skipped providers and why, attempts and waits, cache, quota,
usage and cost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from llm_sidecar.contract.names import OWN_PATH_PREFIX

EXPLAIN_PATH: Final = f"{OWN_PATH_PREFIX}explain/"
KEPT_REQUESTS: Final = 1000


class Explanations:
    """The audit lines of the last requests, by request id."""

    def __init__(self, *, limit: int = KEPT_REQUESTS) -> None:
        self._limit = limit
        self._lines: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, request_id: str, line: bytes) -> None:
        """Remember one request, and forget the oldest where there are too many."""
        # A copy, without the line's end: the encoder's own result sits in a block several times its size.
        self._lines[request_id] = line[:-1]
        if len(self._lines) > self._limit:
            self._lines.popitem(last=False)

    def find(self, request_id: str) -> bytes | None:
        """The line as JSON; None for one that is forgotten, still under way, or was never here."""
        return self._lines.get(request_id)
