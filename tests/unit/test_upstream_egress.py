"""Egress settings that TLS cannot use are refused by field, and quoted nowhere."""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import trustme

from llm_sidecar.providers.base import SecretText
from llm_sidecar.upstream import Egress, InvalidEgress, tls_context

AUTHORITY = trustme.CA()
LEAF = AUTHORITY.issue_cert("sidecar")
CERTIFICATE = b"".join(blob.bytes() for blob in LEAF.cert_chain_pems).decode()
PRIVATE_KEY = LEAF.private_key_pem.bytes().decode()


@pytest.mark.parametrize(
    "bundle", ["no PEM", "", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "é"]
)
def test_a_bundle_that_is_none_is_refused_by_its_field(bundle: str) -> None:
    with pytest.raises(InvalidEgress, match=r"egress\.caBundleSecretRef"):
        tls_context(Egress(ca_bundle=bundle))


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        ("no PEM", PRIVATE_KEY),
        (CERTIFICATE, "no PEM"),
        ("", ""),
        (CERTIFICATE, AUTHORITY.issue_cert("other").private_key_pem.bytes().decode()),
    ],
    ids=["no-certificate", "no-key", "nothing", "another-key"],
)
def test_a_client_certificate_that_is_none_is_refused_by_its_field(certificate: str, key: str) -> None:
    with pytest.raises(InvalidEgress, match=r"egress\.clientCertificateSecretRef") as raised:
        tls_context(Egress(certificate=certificate, private_key=SecretText(key)))
    assert "PRIVATE KEY" not in str(raised.value)


def test_certificates_that_fit_are_taken() -> None:
    bundle = AUTHORITY.cert_pem.bytes().decode()
    context = tls_context(Egress(ca_bundle=bundle, certificate=CERTIFICATE, private_key=SecretText(PRIVATE_KEY)))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_equal_settings_share_a_pool_and_hide_the_key() -> None:
    one, two = (Egress(certificate=CERTIFICATE, private_key=SecretText(PRIVATE_KEY)) for _ in range(2))
    assert {one, two} == {one}
    assert PRIVATE_KEY not in repr(one)


@pytest.mark.parametrize("key", [PRIVATE_KEY, "no PEM"], ids=["good", "bad"])
def test_without_memory_files_the_certificate_is_on_disk_for_a_moment_and_for_its_owner_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    """As on macOS."""
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def watched(self: ssl.SSLContext, path: str) -> None:
        modes.append(stat.S_IMODE(Path(path).stat().st_mode))
        assert list(tmp_path.iterdir()) == [Path(path)]
        load(self, path)

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    with nullcontext() if key == PRIVATE_KEY else pytest.raises(InvalidEgress):
        tls_context(Egress(certificate=CERTIFICATE, private_key=SecretText(key)))
    assert modes == [0o600]
    assert not list(tmp_path.iterdir())
