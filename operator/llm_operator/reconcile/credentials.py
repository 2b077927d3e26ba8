"""Following a provider's references to Secrets. Pure; no problem told here shows a value."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from pydantic import SecretStr

from llm_operator.reconcile.objects import Key, ObservedProvider, ObservedSecret
from llm_operator.reconcile.store import Store
from llm_operator.status import Reason, Truth
from llm_sidecar.contract.config import ClientCertificate
from llm_sidecar.contract.names import CREDENTIALS_LABEL
from llm_sidecar.contract.resources import LLMProviderSpec

_CERTIFICATE_KEY: Final = "tls.crt"
_PRIVATE_KEY_KEY: Final = "tls.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything that a provider refers to."""

    credential: SecretStr | None = None
    ca_bundle: str | None = field(default=None, repr=False)
    client_certificate: ClientCertificate | None = field(default=None, repr=False)

    def digest(self) -> bytes:
        """Tells two sets of credentials apart without telling them."""
        certificate = self.client_certificate
        parts = (
            self.credential.get_secret_value() if self.credential is not None else "",
            self.ca_bundle or "",
            certificate.certificate if certificate is not None else "",
            certificate.private_key.get_secret_value() if certificate is not None else "",
        )
        return sha256("\0".join(parts).encode()).digest()


@dataclass(frozen=True, slots=True)
class CredentialsProblem:
    """Why a provider's credentials cannot be used: reason and message of its condition."""

    reason: Reason
    message: str
    truth: Truth = Truth.FALSE


class _Unusable(Exception):
    def __init__(self, problem: CredentialsProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def resolve(
    provider: ObservedProvider, store: Store, *, unlabelled: Collection[Key] = ()
) -> Credentials | CredentialsProblem:
    """The provider's credentials, or the first thing that is wrong with them.

    `unlabelled` are Secrets that are there, but whose owner has not opened them to the controller.
    """
    if provider.resource is None:
        return CredentialsProblem(Reason.NOT_CHECKED, "The spec cannot be read.", Truth.UNKNOWN)
    try:
        return _Resolver(provider.key.namespace, store, unlabelled).resolve(provider.resource.spec)
    except _Unusable as unusable:
        return unusable.problem


@dataclass(frozen=True, slots=True)
class _Resolver:
    namespace: str
    store: Store
    unlabelled: Collection[Key]

    def resolve(self, spec: LLMProviderSpec) -> Credentials:
        return Credentials(
            credential=self._credential(spec),
            ca_bundle=self._ca_bundle(spec),
            client_certificate=self._client_certificate(spec),
        )

    def _credential(self, spec: LLMProviderSpec) -> SecretStr | None:
        if spec.credentials is None:
            return None
        reference, field_name = spec.credentials.secret_key_ref, "spec.credentials.secretKeyRef"
        value = self._value(reference.name, reference.key, field_name)
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise self._invalid(
                f"{field_name}: the value of key {reference.key} in Secret {reference.name} cannot be sent in a header."
                " Fix: store the key alone: printable ASCII without spaces and line breaks"
            )
        return SecretStr(value)

    def _ca_bundle(self, spec: LLMProviderSpec) -> str | None:
        reference, field_name = spec.egress.ca_bundle_secret_ref, "spec.egress.caBundleSecretRef"
        if reference is None:
            return None
        bundle = self._value(reference.name, reference.key, field_name)
        if not _are_certificates(bundle):
            raise self._invalid(
                f"{field_name}: the value of key {reference.key} in Secret {reference.name} is not PEM certificates. "
                "Fix: store the text from BEGIN CERTIFICATE to END CERTIFICATE"
            )
        return bundle

    def _client_certificate(self, spec: LLMProviderSpec) -> ClientCertificate | None:
        reference, field_name = spec.egress.client_certificate_secret_ref, "spec.egress.clientCertificateSecretRef"
        if reference is None:
            return None
        certificate = self._value(reference.name, _CERTIFICATE_KEY, field_name)
        private_key = self._value(reference.name, _PRIVATE_KEY_KEY, field_name)
        if not _are_certificates(certificate) or "PRIVATE KEY-----" not in private_key:
            raise self._invalid(
                f"{field_name}: Secret {reference.name} does not hold a PEM certificate and its private key. "
                "Fix: make it by: kubectl create secret tls NAME --cert=FILE --key=FILE"
            )
        return ClientCertificate(certificate=certificate, private_key=SecretStr(private_key))

    def _value(self, name: str, key: str, field_name: str) -> str:
        secret = self._secret(name, field_name)
        try:
            # A line break at the end of a pasted key is no part of it.
            value = secret.values.get(key, b"").decode().strip()
        except UnicodeDecodeError:
            raise self._invalid(
                f"{field_name}: the value of key {key} in Secret {name} is not text. Fix: store it as UTF-8"
            ) from None
        if value:
            return value
        known = ", ".join(sorted(secret.values)) or "none"
        message = (
            f"{field_name}.key: Secret {name} has no key {key}, or an empty one. Fix: add it, or name one of: {known}"
        )
        raise _Unusable(CredentialsProblem(Reason.KEY_NOT_FOUND, message))

    def _secret(self, name: str, field_name: str) -> ObservedSecret:
        key = Key(self.namespace, name)
        secret = self.store.secrets.get(key)
        if secret is not None:
            return secret
        if self.namespace in self.store.unreadable:
            message = (
                f"The controller may not read Secrets of namespace {self.namespace}. Fix: put the provider into a "
                "shared namespace, or let the controller read Secrets there (see the installation's values)"
            )
            problem = CredentialsProblem(Reason.SECRET_NOT_READABLE, message)
        elif self.namespace not in self.store.read:
            message = f"The Secrets of namespace {self.namespace} have not been read: no pod there uses a team yet."
            problem = CredentialsProblem(Reason.NOT_CHECKED, message, Truth.UNKNOWN)
        elif key in self.unlabelled:
            message = (
                f"{field_name}.name: Secret {name} lacks the label that opens it to the controller. "
                f"Fix: kubectl label secret {name} --namespace {self.namespace} {CREDENTIALS_LABEL}=true"
            )
            problem = CredentialsProblem(Reason.SECRET_NOT_LABELLED, message)
        else:
            message = (
                f"{field_name}.name: there is no Secret {name} in namespace {self.namespace}. "
                f"Fix: create it, with the label {CREDENTIALS_LABEL}=true"
            )
            problem = CredentialsProblem(Reason.SECRET_NOT_FOUND, message)
        raise _Unusable(problem)

    @staticmethod
    def _invalid(message: str) -> _Unusable:
        return _Unusable(CredentialsProblem(Reason.INVALID_VALUE, message))


def _are_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True
