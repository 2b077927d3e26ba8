"""The way out of the pod: which proxy, which authorities are trusted, which certificate we show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

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
    # OpenSSL's Python binding takes files only. A memory file never touches a disk, and needs no writable folder.
    import os  # noqa: PLC0415 - only with a client certificate

    descriptor = os.memfd_create("client-certificate")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate.encode() + b"\n" + private_key.reveal().encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidEgress(
            "egress.clientCertificateSecretRef: tls.crt and tls.key are not a PEM certificate and its unencrypted key"
        ) from error
    finally:
        os.close(descriptor)
