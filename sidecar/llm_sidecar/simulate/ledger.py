"""The truth about every request, from the one side that knows it: accounting tests compare their counters with it."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_sidecar.simulate.answer import JSONObject, Usage


class Outcome(StrEnum):
    """How a request ended, from the provider's side."""

    OPEN = "open"
    FINISHED = "finished"
    BROKEN_ON_PURPOSE = "broken on purpose"
    CLIENT_GONE = "client gone"


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request; filled in while it is answered."""

    number: int
    method: str
    path: str
    header_names: list[str]
    """Names only: the simulator keeps no key and no prompt."""
    retry_count: str | None
    client_request_id: str | None = None
    """`x-client-request-id`, by which a test knows its own request again."""
    api: str | None = None
    model: str | None = None
    stream: bool = False
    status: int | None = None
    usage_told: Usage | None = None
    """The last that reached the wire."""
    usage_true: Usage | None = None
    """Of what was generated until the end, also where nobody was told."""
    outcome: Outcome = field(default=Outcome.OPEN)

    def as_json(self) -> JSONObject:
        """Return the entry as `GET /_simulate/requests` tells it."""
        return asdict(self)


class Ledger:
    """The last requests, oldest first."""

    def __init__(self, size: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)

    def open(self, entry: Entry) -> None:
        """Add a request that has just come."""
        self._entries.append(entry)

    def entries(self) -> list[Entry]:
        """Return all entries that are kept."""
        return list(self._entries)

    def reset(self) -> None:
        """Forget everything; requests under way no longer appear."""
        self._entries.clear()
