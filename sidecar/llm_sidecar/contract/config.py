"""The sidecar's config document: everything that one team's sidecars need, in one JSON file.

The operator publishes it as a Secret, `llm-sidecar run` makes it from manifests. It holds keys in the clear, so
no error of this module ever quotes a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, SecretStr, ValidationError

from llm_sidecar.contract.fields import ResourceName
from llm_sidecar.contract.resources import LLMProviderSpec, TeamQuotaSpec
from llm_sidecar.contract.rules import ContractModel, Rule
from llm_sidecar.contract.violations import violations_of

SCHEMA_VERSION: Final = 1
"""What this program writes, and the newest that it fully understands."""

MINIMUM_READER_VERSION: Final = 1
"""The oldest reader that may use what this program writes. Raise it with each new field that restricts something:
an old sidecar which ignored such a field would allow what the document forbids."""

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
"""A Secret holds no more than this."""


class ConfigRefused(Exception):
    """A configuration cannot be used. Every line names what is wrong and what to do, and none quotes a secret."""

    def __init__(self, *problems: object) -> None:
        self.problems = tuple(str(problem) for problem in problems)
        super().__init__("\n".join(self.problems))


class InvalidConfig(ConfigRefused):
    """The document is not one, or breaks a rule. Every line names a field."""


class TeamEntry(ContractModel):
    """The team whose pods these are, and its quota."""

    namespace: ResourceName
    name: ResourceName
    spec: TeamQuotaSpec = TeamQuotaSpec()
    allowed: Annotated[bool, Field(strict=True)] = True
    """False: the team does not admit pods of this namespace, or not any more. The document then holds no keys."""

    @property
    def label(self) -> str:
        """`NAMESPACE/NAME`: in metrics and in the store's keys."""
        return f"{self.namespace}/{self.name}"


class ClientCertificate(ContractModel):
    """What the sidecar shows to a provider that asks who it is."""

    certificate: Annotated[str, Field(min_length=1)]
    """PEM, with its chain."""
    private_key: SecretStr
    """PEM."""


class ProviderEntry(ContractModel):
    """One provider with everything that its spec only refers to."""

    rules = (
        Rule(
            "",
            lambda entry: entry.spec.credentials is None or entry.credential is not None,
            "is missing, though spec.credentials asks for a key",
            "add the key, or remove spec.credentials",
            "credential",
        ),
        Rule(
            "",
            lambda entry: entry.spec.egress.ca_bundle_secret_ref is None or entry.ca_bundle is not None,
            "is missing, though spec.egress.caBundleSecretRef asks for one",
            "add the PEM certificates, or remove the reference",
            "caBundle",
        ),
        Rule(
            "",
            lambda entry: (
                entry.spec.egress.client_certificate_secret_ref is None or entry.client_certificate is not None
            ),
            "is missing, though spec.egress.clientCertificateSecretRef asks for one",
            "add the certificate and its key, or remove the reference",
            "clientCertificate",
        ),
    )

    namespace: ResourceName
    name: ResourceName
    shared: Annotated[bool, Field(strict=True)]
    """Stands in a namespace whose providers serve all others; its name alone is its label then."""
    spec: LLMProviderSpec
    credential: SecretStr | None = None
    ca_bundle: str | None = None
    client_certificate: ClientCertificate | None = None

    @property
    def label(self) -> str:
        """Its name in metrics and headers: with the namespace where the name alone may not be unique."""
        return self.name if self.shared else f"{self.namespace}/{self.name}"

    @property
    def identity(self) -> str:
        """`NAMESPACE/NAME`."""
        return f"{self.namespace}/{self.name}"


class StoreEntry(ContractModel):
    """The shared Redis."""

    url: SecretStr | None = None
    """With user name and password, if any. None: no store, so nothing is cached and no limit is counted."""
    ca_bundle: str | None = None
    """PEM of the authorities to trust with TLS, in the place of the system's."""


class ConfigDocument(ContractModel):
    """One team's configuration."""

    rules = (
        Rule(
            "",
            lambda document: (
                len({entry.identity for entry in document.providers}) == len(document.providers)
                and len({entry.label for entry in document.providers}) == len(document.providers)
            ),
            "two providers have the same name",
            "rename one; shared providers of different namespaces need different names too",
            "providers",
        ),
    )

    schema_version: Annotated[int, Field(strict=True, ge=1)] = SCHEMA_VERSION
    minimum_reader_version: Annotated[int, Field(strict=True, ge=1)] = MINIMUM_READER_VERSION
    team: TeamEntry | None = None
    """None: no quota, everything that the providers offer."""
    providers: tuple[ProviderEntry, ...] = ()
    store: StoreEntry = StoreEntry()


class _Versions(ContractModel):
    """The two fields that must be understood before all others, whatever else the document holds."""

    model_config = ConfigDict(extra="ignore")

    schema_version: Annotated[int, Field(strict=True, ge=1)]
    minimum_reader_version: Annotated[int, Field(strict=True, ge=1)]


def parse_config(raw: bytes) -> ConfigDocument:
    """Read a document. Raises `InvalidConfig`.

    A document of a newer version is read, its unknown fields ignored, if it says that readers of our version may.
    """
    document = _json_object(raw)
    versions = _validated(_Versions, document)
    if versions.minimum_reader_version > SCHEMA_VERSION:
        raise InvalidConfig(
            f"minimumReaderVersion: the document needs a reader of version {versions.minimum_reader_version}, "
            f"and this is version {SCHEMA_VERSION}. Fix: run a newer llm-sidecar"
        )
    return _validated(ConfigDocument, document, ignore_unknown=versions.schema_version > SCHEMA_VERSION)


def _json_object(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidConfig(
            f"the document has {len(raw)} bytes, and {MAX_DOCUMENT_BYTES} are the most. Fix: use fewer models"
        )
    try:
        document = json.loads(raw, object_pairs_hook=_object_without_duplicates)
    except json.JSONDecodeError as error:
        raise InvalidConfig(
            f"line {error.lineno}, column {error.colno}: not JSON ({error.msg}). Fix: write the whole document"
        ) from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidConfig("the document is not JSON. Fix: write the whole document as UTF-8 JSON") from None
    if not isinstance(document, dict):
        raise InvalidConfig("the document is not a JSON object. Fix: write the whole document")
    return document


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # Which of the two counts is each parser's own choice, and a restriction must never be lost by it.
        raise InvalidConfig("the document holds an object with the same key twice. Fix: remove one of the two")
    return result


_Model = TypeVar("_Model", bound=ContractModel)


def _validated(model: type[_Model], document: Mapping[str, Any], *, ignore_unknown: bool = False) -> _Model:
    try:
        return model.model_validate(document, extra="ignore" if ignore_unknown else None, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [f"{found.path}: {found.message}. Fix: {found.fix}" for found in violations_of(error, model)]
    raise InvalidConfig(*problems)


def render_config(document: ConfigDocument) -> bytes:
    """Write a document: the same bytes for equal documents, keys in the clear."""
    plain = _in_the_clear(document.model_dump(mode="python", by_alias=True, exclude_none=True))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _in_the_clear(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _in_the_clear(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_the_clear(item) for item in value]
    return value


def config_hash(raw: bytes) -> str:
    """Short name of these bytes, for metrics, annotations and logs."""
    return sha256(raw).hexdigest()[:16]
