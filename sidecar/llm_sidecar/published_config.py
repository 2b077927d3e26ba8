"""Configuration from the file that the operator publishes."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from llm_sidecar.contract.config import parse_config
from llm_sidecar.reload import UnreadableSource

if TYPE_CHECKING:
    from pathlib import Path

    from llm_sidecar.contract.config import ConfigDocument


class PublishedConfig:
    """The config document, as a Secret's volume shows it. See `ConfigSource`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fingerprint(self) -> bytes:
        """The content's digest."""
        return sha256(self._read()).digest()

    def load(self) -> ConfigDocument:
        """Parse the file."""
        return parse_config(self._read())

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise UnreadableSource(
                f"the config file {self._path} cannot be read ({error.strerror}). Fix: check --config"
            ) from error
