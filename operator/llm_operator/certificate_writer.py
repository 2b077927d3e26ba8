"""Keeps the webhook's certificates: one Secret, and the `caBundle` of one webhook configuration.

The controller process runs one keeper. A second one (a rollout, a split controller) does no harm: the Secret decides,
each write names the version that it was made from, and what the API server is told to trust is what the Secret holds.
Each pass compares and corrects, so that it does not matter where an earlier one ended, or who undid its work since.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from llm_operator.certificates import Certificates, renew
from llm_operator.kube import SECRET, ApiError, Document, Kind

WEBHOOK_CONFIGURATION: Final = Kind(
    "MutatingWebhookConfiguration",
    "admissionregistration.k8s.io/v1",
    "mutatingwebhookconfigurations",
    is_namespaced=False,
)
PASS_SECONDS: Final = 10.0
"""Soon enough after a Helm upgrade that empties the `caBundle`; two reads in ten seconds are nothing. Also long enough
for every API server to have heard of a new authority before something that it signed is shown."""
_SHOWN_CHARACTERS: Final = 300

_log: Final = logging.getLogger(__name__)


class CertificateStore(Protocol):
    """What the keeper needs of the API server: a part of `llm_operator.kube.Kube`."""

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Document | None:
        """One object, or None."""
        ...

    async def create(self, kind: Kind, document: Document) -> None:
        """Make an object; `ApiError` 409 where it exists."""
        ...

    async def apply(self, kind: Kind, document: Document) -> None:
        """Server-side apply; `ApiError` 409 where `metadata.resourceVersion` is not the newest."""
        ...


class CertificateKeeper:
    """Makes, renews and publishes the webhook's certificates."""

    def __init__(
        self,
        store: CertificateStore,
        *,
        namespace: str,
        secret: str,
        webhook_configuration: str,
        service_names: Sequence[str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._secret = secret
        self._configuration = webhook_configuration
        self._names = tuple(service_names)
        self._clock = clock

    async def run(self) -> None:
        """Ensure for ever. Nothing that goes wrong ends it: the certificates of today are good for days."""
        while True:
            try:
                await self.ensure()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next pass may succeed
                if isinstance(error, ApiError) and error.status == 409:
                    _log.info("another process changed the webhook's certificates: looking again")
                else:
                    _log.warning(
                        "the webhook's certificates could not be ensured, trying again in %.0f s: %s: %s",
                        *(PASS_SECONDS, type(error).__name__, str(error)[:_SHOWN_CHARACTERS]),
                    )
            await asyncio.sleep(PASS_SECONDS)

    async def ensure(self) -> None:
        """One pass: renew what is due, and make the API server trust what is stored. Raises `ApiError`."""
        # In this order: whoever reads the newest configuration then also reads the Secret that it was made from.
        configuration = await self._store.get(WEBHOOK_CONFIGURATION, namespace=None, name=self._configuration)
        secret = await self._store.get(SECRET, namespace=self._namespace, name=self._secret)
        stored = Certificates.from_secret(_data(secret))
        wanted = renew(stored, trusted=_trusted(configuration), names=self._names, now=self._clock())
        if wanted is not stored:
            await self._write(secret, wanted)
            _log.info("%s, in Secret %s/%s", _told(stored, wanted), self._namespace, self._secret)
        if configuration is None:
            _log.warning(
                "there is no MutatingWebhookConfiguration %s, so no pod is injected: restore it by `helm upgrade`",
                self._configuration,
            )
            return
        await self._publish(configuration, wanted.trusted)

    async def _write(self, secret: Document | None, wanted: Certificates) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in wanted.to_secret().items()}
        metadata = {"namespace": self._namespace, "name": self._secret}
        if secret is None:
            made = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata}
            await self._store.create(SECRET, {**made, "data": data})
        else:
            # Server-side apply leaves alone what it does not name: labels, owners, the type.
            metadata["resourceVersion"] = secret["metadata"]["resourceVersion"]
            await self._store.apply(SECRET, {"metadata": metadata, "data": data})

    async def _publish(self, configuration: Document, trusted: bytes) -> None:
        bundle = base64.b64encode(trusted).decode()
        if all(client.get("caBundle") == bundle for client in _clients(configuration)):
            return
        metadata = {"name": self._configuration, "resourceVersion": configuration["metadata"]["resourceVersion"]}
        webhooks = [
            {"name": webhook["name"], "clientConfig": {"caBundle": bundle}} for webhook in _webhooks(configuration)
        ]
        await self._store.apply(WEBHOOK_CONFIGURATION, {"metadata": metadata, "webhooks": webhooks})
        _log.info("MutatingWebhookConfiguration %s trusts the webhook's certificates", self._configuration)


def _data(secret: Document | None) -> dict[str, bytes]:
    data = (secret or {}).get("data") or {}
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, TypeError):
        return {}


def _webhooks(configuration: Document | None) -> list[Mapping[str, Any]]:
    return (configuration or {}).get("webhooks") or []


def _clients(configuration: Document | None) -> list[Mapping[str, Any]]:
    return [webhook.get("clientConfig") or {} for webhook in _webhooks(configuration)]


def _trusted(configuration: Document | None) -> bytes | None:
    """What all of its webhooks trust."""
    bundles = {client.get("caBundle") for client in _clients(configuration)}
    bundle = bundles.pop() if len(bundles) == 1 else None
    try:
        return base64.b64decode(bundle, validate=True) if bundle else None
    except (binascii.Error, TypeError, ValueError):
        return None


def _told(stored: Certificates | None, wanted: Certificates) -> str:
    if stored is None:
        return "made a certificate authority and a serving certificate for the webhook"
    if wanted.authority is not stored.authority:
        return "renewed the webhook's certificate authority"
    if wanted.serving is not stored.serving:
        return f"renewed the webhook's certificate until {wanted.serving.certificate.not_valid_after_utc:%F %R} UTC"
    return "dropped a certificate authority of the webhook that nothing needs any more"
