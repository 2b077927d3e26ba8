"""Configuration that follows its source, by content: what cannot be used changes nothing but the health report.

The source is read again every second rather than watched: a Secret's volume is swapped by renaming a symbolic link
above the file, which watchers of the file itself do not see.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from llm_sidecar.contract.config import ConfigRefused

if TYPE_CHECKING:
    from llm_sidecar.contract.config import ConfigDocument
    from llm_sidecar.health import Health

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0


class UnreadableSource(ConfigRefused):
    """The source cannot be read at all. The message says why and what to do."""


class ConfigSource(Protocol):
    """Where configuration comes from."""

    def fingerprint(self) -> bytes:
        """Changes whenever the content does. Raises `UnreadableSource`."""
        ...

    def load(self) -> ConfigDocument:
        """The document. Raises `ConfigRefused`."""
        ...


class Reloader:
    """Applies a source's new content while the process runs."""

    def __init__(
        self, source: ConfigSource, apply: Callable[[ConfigDocument], Awaitable[object]], health: Health
    ) -> None:
        self._source = source
        self._apply = apply
        self._health = health
        self._seen = source.fingerprint()

    async def run(self) -> None:
        """Look for new content until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        fingerprint: bytes | None = None
        try:
            fingerprint = self._source.fingerprint()
            if fingerprint == self._seen:
                return
            self._seen = fingerprint
            await self._apply(self._source.load())
        except ConfigRefused as error:
            if isinstance(error, UnreadableSource):
                self._seen = b""  # what returns is looked at again, even if it is what was there before
            self._refused(error.problems)
        except Exception as error:  # or nobody would look at the source ever again, and nobody would know
            if fingerprint is None:
                self._seen = b""
            problem = f"the sidecar failed by a defect of its own ({type(error).__name__}); its log tells more"
            if self._refused((problem,)):
                logger.exception("the configuration could not be applied, by a defect of the sidecar")

    def _refused(self, problems: tuple[str, ...]) -> bool:
        """Tell, but not every second; True where it was told."""
        if problems == self._health.config_problems:
            return False
        self._health.config_refused(problems)
        return True
