"""The webhook's own certificate, as the kubelet mounts it: loaded when it appears, swapped when it changes.

The files are compared by content: those of a mounted Secret are links, and their times say nothing. The live context
is given the new pair, so that no listener is closed and no connection lost: handshakes under way keep what they began
with. A pair that cannot be used (cut, mixed up, expired) is told and left; the one before goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from llm_operator.certificates import SERVING_CERTIFICATE, SERVING_KEY

POLL_SECONDS: Final = 2.0

_log: Final = logging.getLogger(__name__)


class CertificateReader:
    """Holds the TLS context of the webhook's listener, and keeps it at what the directory holds."""

    def __init__(
        self,
        directory: Path,
        *,
        on_loaded: Callable[[datetime], None] = lambda _expires_at: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.context: Final = _server_context()
        self._directory = directory
        self._on_loaded = on_loaded
        self._clock = clock
        self._seen = b""
        self._told = ""
        self._expires_at: datetime | None = None
        self._loaded = asyncio.Event()

    @property
    def usable(self) -> bool:
        """True while the API server can accept what we show."""
        return self._expires_at is not None and self._clock() < self._expires_at

    async def loaded(self) -> None:
        """Wait for the first certificate."""
        await self._loaded.wait()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    def refresh(self) -> None:
        """Look once. To be called in the event loop's thread: no handshake may begin between certificate and key."""
        try:
            certificate, key = ((self._directory / name).read_bytes() for name in (SERVING_CERTIFICATE, SERVING_KEY))
        except OSError as error:
            self._tell(f"cannot be read ({error.strerror}): is the Secret mounted, and does it exist?")
            return
        seen = hashlib.sha256(b"%d:%b%b" % (len(certificate), certificate, key)).digest()
        if seen != self._seen:
            self._take(certificate, key, seen)

    def _take(self, certificate: bytes, key: bytes, seen: bytes) -> None:
        try:
            expires_at = _checked(certificate, self._clock())
            with _one_file(certificate, key) as path:
                # First into a context of no use: a pair that does not fit would leave the live one without a key.
                for context in (_server_context(), self.context):
                    context.load_cert_chain(path, password=_no_password)
        except Exception as error:  # noqa: BLE001 - there is no telling what lies in the files
            # Not remembered as seen: what is not valid yet may be so at the next look.
            self._tell(f"cannot be used: {error}")
            return
        self._seen, self._told, self._expires_at = seen, "", expires_at
        self._loaded.set()
        self._on_loaded(expires_at)
        _log.info("showing the certificate that is valid until %s", f"{expires_at:%F %R} UTC")

    def _tell(self, problem: str) -> None:
        """Once for each problem: the files are looked at every other second."""
        if problem != self._told:
            self._told = problem
            kept = "the one before goes on" if self._loaded.is_set() else "no pod can be injected until there is one"
            _log.warning("the webhook's certificate in %s %s; %s", self._directory, problem, kept)


def _checked(pem: bytes, now: datetime) -> datetime:
    """When the certificate ends."""
    certificate = x509.load_pem_x509_certificate(pem)
    if now >= certificate.not_valid_after_utc:
        raise ValueError(f"it expired at {certificate.not_valid_after_utc:%F %R} UTC")
    if now < certificate.not_valid_before_utc:
        raise ValueError(f"it is not valid before {certificate.not_valid_before_utc:%F %R} UTC")
    return certificate.not_valid_after_utc


def _server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Else OpenSSL asks for one at the terminal, and waits."""
    raise ValueError("its key is encrypted: store it without a password")


@contextmanager
def _one_file(certificate: bytes, key: bytes) -> Iterator[str]:
    """The pair as one file, because `ssl` reads only files: those checked, whatever the kubelet swaps meanwhile."""
    pem = certificate.rstrip() + b"\n" + key
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(pem)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile() as file:  # readable by the owner alone
        file.write(pem)
        file.flush()
        yield file.name
