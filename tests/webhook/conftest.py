"""A certificate on disk, as the kubelet mounts it, and the webhook's HTTPS listener with it."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from llm_operator.admission_server import serve_admission
from llm_operator.certificate_reader import CertificateReader
from llm_operator.certificates import Authority, Certificates, issue, make_authority
from tests.webhook.reviews import make_admission

NAMES = ("localhost",)


@dataclass
class MountedSecret:
    """A directory as the kubelet makes it: the files are links, and a change swaps a directory."""

    directory: Path
    authority: Authority = field(default_factory=lambda: make_authority(now=datetime.now(UTC)))
    _generation: int = 0

    def show(self, *, at: datetime | None = None) -> datetime:
        """A new certificate, issued at that time. It ends a week later."""
        made = issue(self.authority, names=NAMES, now=at or datetime.now(UTC))
        data = Certificates(self.authority, made).to_secret()
        self.write(data["tls.crt"], data["tls.key"])
        return made.certificate.not_valid_after_utc

    def write(self, certificate: bytes, key: bytes) -> None:
        self._generation += 1
        generation = self.directory / f"..{self._generation}"
        generation.mkdir()
        (generation / "tls.crt").write_bytes(certificate)
        (generation / "tls.key").write_bytes(key)
        (self.directory / "..new").symlink_to(generation.name)
        os.replace(self.directory / "..new", self.directory / "..data")  # noqa: PTH105 - atomic, as the kubelet does
        for name in ("tls.crt", "tls.key"):
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone, as the API server does by the `caBundle`."""
        expires = datetime.now(UTC) + timedelta(seconds=1)
        bundle = Certificates(self.authority, issue(self.authority, names=NAMES, now=expires)).trusted
        return ssl.create_default_context(cadata=bundle.decode())


@pytest.fixture
def mounted(tmp_path: Path) -> MountedSecret:
    """An empty directory: the Secret does not exist yet."""
    return MountedSecret(tmp_path)


@pytest.fixture
def reader(mounted: MountedSecret) -> CertificateReader:
    return CertificateReader(mounted.directory)


@pytest.fixture
async def url(mounted: MountedSecret, reader: CertificateReader) -> AsyncIterator[str]:
    """The address of a listener that shows the mounted certificate."""
    mounted.show()
    reader.refresh()
    async with serve_admission(make_admission(), context=reader.context, host="127.0.0.1", port=0) as port:
        yield f"https://localhost:{port}"


@pytest.fixture
async def api_server(mounted: MountedSecret) -> AsyncIterator[Callable[[], aiohttp.ClientSession]]:
    """Makes clients that connect as an API server does: over TLS, trusting the bundle alone."""
    sessions: list[aiohttp.ClientSession] = []

    def make(*, force_close: bool = False) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=mounted.client_context(), limit=0, force_close=force_close)
        sessions.append(aiohttp.ClientSession(connector=connector))
        return sessions[-1]

    yield make
    for session in sessions:
        await session.close()
