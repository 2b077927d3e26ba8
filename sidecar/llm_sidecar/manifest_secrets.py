"""Secrets of local manifests: reading them, and following a provider's references to them.

The only module of local mode that holds keys as text. No problem reported here ever shows a value.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr

from llm_sidecar.contract.config import ClientCertificate, ProviderEntry
from llm_sidecar.contract.names import FROM_ENV_ANNOTATION
from llm_sidecar.contract.resources import DEFAULT_NAMESPACE, LLMProvider
from llm_sidecar.contract.violations import Location
from llm_sidecar.manifest_files import Document, Problem, Severity, Source

CERTIFICATE_KEY: Final = "tls.crt"
"""Key of the certificate in a Secret of type kubernetes.io/tls."""
PRIVATE_KEY_KEY: Final = "tls.key"
"""Key of the private key in a Secret of type kubernetes.io/tls."""

_VARIABLE: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_ANNOTATION_LOCATION: Final[Location] = ("metadata", "annotations", FROM_ENV_ANNOTATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A Kubernetes Secret of a local manifest. `repr` shows no value."""

    namespace: str
    name: str
    data: Mapping[str, str] = field(repr=False)
    variables: Mapping[str, str]
    """Environment variables by key, from the annotation; the key `""` stands for any key."""

    def variable(self, key: str) -> str | None:
        """The environment variable that may hold this key's value, if the annotation names one."""
        return self.variables.get(key, self.variables.get(""))


def read_secret(document: Document, problems: list[Problem]) -> Secret | None:
    """The Secret of a `v1` document; None where it has no name. Appends to `problems`."""
    metadata = document.content.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        problems.append(document.source.problem(("metadata", "name"), "required value", "add it"))
        return None
    return Secret(
        namespace=str(metadata.get("namespace", DEFAULT_NAMESPACE)),
        name=metadata["name"],
        data=dict(_values(document, problems)),
        variables=_variables(metadata.get("annotations"), document.source, problems),
    )


def _values(document: Document, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    # stringData comes last: where both hold a key, it wins, as in the cluster.
    for section, decode in (("data", _from_base64), ("stringData", str)):
        values = document.content.get(section, {})
        if not isinstance(values, dict):
            problems.append(document.source.problem((section,), "must be an object", "write KEY: VALUE below it"))
            continue
        for key, value in values.items():
            if not isinstance(value, str):
                problems.append(document.source.problem((section, key), "must be text", "put the value in quotes"))
                continue
            try:
                yield key, decode(value)
            except ValueError:
                fix = "encode it, or write it plainly under stringData"
                problems.append(document.source.problem((section, key), "is not base64 of UTF-8 text", fix))


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except binascii.Error as error:
        raise ValueError from error


def _variables(annotations: Any, source: Source, problems: list[Problem]) -> dict[str, str]:
    written = annotations.get(FROM_ENV_ANNOTATION) if isinstance(annotations, dict) else None
    if written is None:
        return {}
    if _VARIABLE.fullmatch(str(written).strip()):
        return {"": str(written).strip()}
    result: dict[str, str] = {}
    for part in str(written).split(","):
        key, _, variable = (piece.strip() for piece in part.partition("="))
        if not key or not _VARIABLE.fullmatch(variable):
            fix = "write VARIABLE, or KEY=VARIABLE,KEY2=VARIABLE2"
            problems.append(source.problem(_ANNOTATION_LOCATION, "does not name environment variables", fix))
            return {}
        result[key] = variable
    return result


@dataclass(slots=True, kw_only=True)
class Resolver:
    """Follows one provider's references. What cannot be followed is left in `problems`."""

    secrets: Mapping[str, Secret]
    environment: Mapping[str, str]
    provider: LLMProvider
    source: Source
    problems: list[Problem] = field(default_factory=list)

    def resolve(self) -> ProviderEntry | None:
        """The provider with everything that it refers to, or None where something is missing."""
        metadata, spec = self.provider.metadata, self.provider.spec
        credential, bundle, certificate = self._credential(), self._ca_bundle(), self._client_certificate()
        if self.problems:
            return None
        return ProviderEntry(
            namespace=metadata.namespace,
            name=metadata.name,
            shared=True,
            spec=spec,
            credential=SecretStr(credential) if credential is not None else None,
            ca_bundle=bundle,
            client_certificate=certificate,
        )

    def _credential(self) -> str | None:
        if self.provider.spec.credentials is None:
            return None
        reference, location = self.provider.spec.credentials.secret_key_ref, ("spec", "credentials", "secretKeyRef")
        value = self._value(reference.name, reference.key, location)
        if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
            message = f"the value of key {reference.key} in Secret {reference.name} cannot be sent in a header"
            self._report(location, message, "store the key alone: printable ASCII without spaces and line breaks")
        return value

    def _ca_bundle(self) -> str | None:
        reference = self.provider.spec.egress.ca_bundle_secret_ref
        if reference is None:
            return None
        location = ("spec", "egress", "caBundleSecretRef")
        bundle = self._value(reference.name, reference.key, location)
        if bundle is not None and not _are_certificates(bundle):
            message = f"the value of key {reference.key} in Secret {reference.name} is not PEM certificates"
            self._report(location, message, "store the text from BEGIN CERTIFICATE to END CERTIFICATE")
        return bundle

    def _client_certificate(self) -> ClientCertificate | None:
        reference = self.provider.spec.egress.client_certificate_secret_ref
        if reference is None:
            return None
        location = ("spec", "egress", "clientCertificateSecretRef")
        certificate = self._value(reference.name, CERTIFICATE_KEY, location)
        private_key = self._value(reference.name, PRIVATE_KEY_KEY, location)
        if certificate is None or private_key is None:
            return None
        if not _are_certificates(certificate) or "PRIVATE KEY-----" not in private_key:
            message = f"the Secret {reference.name} does not hold a PEM certificate and its private key"
            self._report(location, message, "make it by: kubectl create secret tls NAME --cert=FILE --key=FILE")
        return ClientCertificate(certificate=certificate, private_key=SecretStr(private_key))

    def _value(self, name: str, key: str, location: Location) -> str | None:
        namespace = self.provider.metadata.namespace
        secret = self.secrets.get(f"{namespace}/{name}")
        if secret is None:
            message = f"no Secret {name} of namespace {namespace} is among these files"
            self._report((*location, "name"), message, "add its manifest, or create it in the cluster", missing=True)
            return None
        variable = secret.variable(key)
        value = (self.environment.get(variable, "") if variable else "").strip() or secret.data.get(key, "").strip()
        # A line break at the end of a pasted key is no part of it, and no header may hold one.
        if value:
            return value
        if variable:
            message = f"the environment variable {variable}, which the Secret {name} names for it, is not set"
            self._report((*location, "name"), message, f"export {variable}=...", missing=True)
        else:
            known = ", ".join(sorted(secret.data)) or "none"
            message = f"the Secret {name} has no key {key}, or an empty one"
            self._report((*location, "key"), message, f"add it, or name one that it has ({known})")
        return None

    def _report(self, location: Location, message: str, fix: str, *, missing: bool = False) -> None:
        # The cluster, or the shell that `run` is started from, may have what these files lack.
        severity = Severity.WARNING if missing else Severity.ERROR
        self.problems.append(self.source.problem(location, message, fix, severity))


def _are_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True
