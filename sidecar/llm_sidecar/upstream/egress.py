"""The way out of the pod: which proxy, which authorities are trusted, which certificate we show."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llm_sidecar.providers.base import SecretText


@dataclass(frozen=True, slots=True)
class Egress:
    """How connections leave the pod. Equal ones share their connections."""

    proxy_url: str | None = None
    ca_bundle: str | None = None
    """PEM; replaces the system's authorities."""
    certificate: str | None = None
    """PEM of the client certificate (chain)."""
    private_key: SecretText | None = None

    @property
    def has_tls_settings(self) -> bool:
        """True where TLS needs more than the system's authorities."""
        return self.ca_bundle is not None or self.certificate is not None


class InvalidEgress(ValueError):
    """A CA bundle, client certificate or private key that TLS cannot use."""


def tls_context(egress: Egress) -> ssl.SSLContext:
    """The TLS settings for an egress. Raises `InvalidEgress` naming the field, never quoting it."""
    # An empty bundle is one without a certificate; `ssl` would take it for none and trust the system's authorities.
    bundle = "\n" if egress.ca_bundle == "" else egress.ca_bundle
    try:
        context = ssl.create_default_context(cadata=bundle)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: not ASCII
        raise InvalidEgress("egress.caBundleSecretRef: the bundle is not PEM of X.509 certificates") from error
    context.set_alpn_protocols(["http/1.1"])
    if egress.certificate is not None and egress.private_key is not None:
        _load_client_certificate(context, egress.certificate, egress.private_key)
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, private_key: SecretText) -> None:
    content = certificate.encode() + b"\n" + private_key.reveal().encode()
    try:
        with _private_file(content) as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidEgress(
            "egress.clientCertificateSecretRef: tls.crt and tls.key are not a PEM certificate and its unencrypted key"
        ) from error


@contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    """The path of a file with this content, gone at the end: OpenSSL's Python binding takes files only."""
    descriptor, path, is_on_disk = _open_private()
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield path
    finally:
        os.close(descriptor)
        if is_on_disk:
            Path(path).unlink()


def _open_private() -> tuple[int, str, bool]:
    if hasattr(os, "memfd_create"):  # never touches a disk, and needs no writable folder
        descriptor = os.memfd_create("client-certificate")
        return descriptor, f"/proc/self/fd/{descriptor}", False
    return *tempfile.mkstemp(prefix="llm-sidecar-"), True  # only its owner may read it
