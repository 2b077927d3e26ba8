"""Configuration from manifests on this machine. Apart from `published_config`, because only this one needs YAML."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from llm_sidecar.manifest_files import Unreadable, manifest_files
from llm_sidecar.manifests import assemble, load
from llm_sidecar.providers.factory import LLMProviderFactory
from llm_sidecar.reload import UnreadableSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llm_sidecar.contract.config import ConfigDocument


class LocalConfig:
    """Manifests as `kubectl apply` takes them, for one team on this machine. See `ConfigSource`."""

    def __init__(self, paths: Sequence[Path], *, team: str | None, store_url: str) -> None:
        self._paths = paths
        self._team = team
        self._store_url = store_url

    def fingerprint(self) -> bytes:
        """The digest of all files' names and contents."""
        digest = sha256()
        try:
            for path in manifest_files(self._paths):
                content = path.read_bytes()
                digest.update(f"{path}\0{len(content)}\0".encode())
                digest.update(content)
        except OSError as error:
            raise UnreadableSource(f"{error.filename}: cannot be read ({error.strerror})") from error
        except Unreadable as error:
            raise UnreadableSource(error) from error
        return digest.digest()

    def load(self) -> ConfigDocument:
        """Read, check and resolve them."""
        try:
            manifests = load(self._paths, known_types=LLMProviderFactory.types())
        except Unreadable as error:
            raise UnreadableSource(error) from error
        return assemble(manifests, team=self._team, store_url=self._store_url)
