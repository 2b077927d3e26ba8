"""The certificate on disk: late, changed, cut, mixed up, expired."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from llm_operator.certificate_reader import POLL_SECONDS, CertificateReader
from llm_operator.certificates import Certificates, renew
from tests.webhook.conftest import MountedSecret


def test_before_the_secret_exists_it_waits_and_says_so_once(
    reader: CertificateReader, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reader.refresh()
    assert not reader.usable
    assert caplog.text.count("is the Secret mounted") == 1


@pytest.mark.looptime
async def test_a_certificate_that_appears_late_is_found(reader: CertificateReader, mounted: MountedSecret) -> None:
    running, loaded = asyncio.create_task(reader.run()), asyncio.create_task(reader.loaded())
    await asyncio.sleep(POLL_SECONDS * 30)
    assert not loaded.done()
    mounted.show()
    await asyncio.wait_for(loaded, POLL_SECONDS + 0.1)
    assert reader.usable
    running.cancel()


def test_its_end_is_told_at_each_change(mounted: MountedSecret) -> None:
    ends: list[datetime] = []
    reader = CertificateReader(mounted.directory, on_loaded=ends.append)
    expected = [mounted.show()]
    reader.refresh()
    reader.refresh()
    expected.append(mounted.show(at=datetime.now(UTC) - timedelta(days=1)))
    reader.refresh()
    assert ends == expected


@pytest.mark.parametrize("damage", ["empty", "garbage", "another-key", "expired", "early", "encrypted"])
def test_what_cannot_be_used_is_told_once_and_the_one_before_goes_on(
    damage: str, reader: CertificateReader, mounted: MountedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    mounted.show()
    reader.refresh()
    with caplog.at_level(logging.WARNING):
        _damage(damage, mounted)
        for _ in range(3):
            reader.refresh()
    assert reader.usable
    assert caplog.text.count("the one before goes on") == 1
    assert "PRIVATE" not in caplog.text
    mounted.show()
    reader.refresh()
    assert reader._seen


def _damage(damage: str, mounted: MountedSecret) -> None:
    now = datetime.now(UTC)
    data = renew(None, trusted=None, names=("localhost",), now=now).to_secret()
    match damage:
        case "empty":
            mounted.write(b"", b"")
        case "garbage":
            mounted.write(data["tls.crt"][:200], data["tls.key"])
        case "another-key":
            mounted.write(data["tls.crt"], data["ca.key"])
        case "expired":
            mounted.show(at=now - timedelta(days=30))
        case "early":
            mounted.show(at=now + timedelta(days=30))
        case _:
            mounted.write(data["tls.crt"], _encrypted(data))


def _encrypted(data: dict[str, bytes]) -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - one case needs it

    certificates = Certificates.from_secret(data)
    assert certificates is not None
    return certificates.serving.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


def test_a_certificate_that_ends_while_it_is_shown_makes_the_pod_unready(mounted: MountedSecret) -> None:
    now = datetime.now(UTC)
    reader = CertificateReader(mounted.directory, clock=lambda: now)
    mounted.show()
    reader.refresh()
    assert reader.usable
    now += timedelta(days=8)
    assert not reader.usable
