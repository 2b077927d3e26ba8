"""Reads what the proxies saw of providers. Whoever has the Redis URL can write there, so how much is read is bounded:
how many reports, and how long each may be.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import SecretStr

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.traffic import Traffic, traffic
from llm_operator.redis_client import REDIS_FAILURES, RedisClient, close_client, redis_client
from llm_sidecar.contract.keys import provider_reports
from llm_sidecar.contract.provider_reports import (
    MAX_REPORT_BYTES,
    MAX_REPORTER_CHARACTERS,
    READ_WINDOWS,
    ProviderReport,
    parse_report,
    window_at,
)

SAMPLE: Final = 500
"""Reporters read of one window. Of a larger fleet it is a random sample, which tells as much."""
AT_ONCE: Final = 20
"""Providers read in one write."""
SOCKET_SECONDS: Final = 2.0

_READ: Final = """
local found = {}
for _, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok == 'hash' then
    for _, reporter in ipairs(redis.call('HRANDFIELD', key, ARGV[1])) do
      if #reporter <= tonumber(ARGV[2]) and redis.call('HSTRLEN', key, reporter) <= tonumber(ARGV[3]) then
        table.insert(found, reporter)
        table.insert(found, redis.call('HGET', key, reporter))
      end
    end
  end
end
return found
"""

_log: Final = logging.getLogger(__name__)


class Reports(Protocol):
    """Where the proxies' reports are."""

    async def read(self, providers: Sequence[Key]) -> Mapping[Key, Traffic] | None:
        """What they say about these providers; None where they cannot be read."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class RedisReports:
    """`Reports` in the Redis that the proxies use."""

    def __init__(self, url: SecretStr, *, ca_bundle: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._ca_bundle = ca_bundle
        self._clock = clock
        self._client: RedisClient | None = None
        self._is_away = False

    async def read(self, providers: Sequence[Key]) -> Mapping[Key, Traffic] | None:
        """See `Reports`."""
        window = window_at(self._clock())
        windows = range(window - READ_WINDOWS + 1, window + 1)
        found: dict[Key, Traffic] = {}
        try:
            for start in range(0, len(providers), AT_ONCE):
                some = providers[start : start + AT_ONCE]
                for key, answer in zip(some, await self._ask(some, windows), strict=True):
                    found[key] = traffic(_pairs(answer))
        except (*REDIS_FAILURES, ValueError) as error:
            # A ValueError is a URL that cannot be used, and its text may show it.
            self._tell(is_away=True, reason=type(error).__name__)
            return None
        self._tell(is_away=False)
        return found

    async def _ask(self, providers: Iterable[Key], windows: Iterable[int]) -> list[Any]:
        if self._client is None:
            self._client = redis_client(self._url, ca_bundle=self._ca_bundle, timeout_seconds=SOCKET_SECONDS)
        limits = (SAMPLE, MAX_REPORTER_CHARACTERS, MAX_REPORT_BYTES)
        async with self._client.pipeline(transaction=False) as pipeline:
            for provider in providers:
                keys = [provider_reports(str(provider), window) for window in windows]
                pipeline.execute_command("EVAL", _READ, len(keys), *keys, *limits)
            answers: list[Any] = await pipeline.execute()
        return answers

    def _tell(self, *, is_away: bool, reason: str = "") -> None:
        if is_away != self._is_away:
            if is_away:
                _log.warning("the proxies' reports cannot be read (%s); providers are judged by probes alone", reason)
            else:
                _log.info("the proxies' reports can be read again")
        self._is_away = is_away

    async def close(self) -> None:
        """See `Reports`."""
        if self._client is not None:
            await close_client(self._client)


def _pairs(answer: Any) -> Iterator[tuple[bytes, ProviderReport]]:
    for reporter, raw in zip(answer[::2], answer[1::2], strict=True):
        report = parse_report(raw)
        if report is not None and report.attempts:
            yield reporter, report
