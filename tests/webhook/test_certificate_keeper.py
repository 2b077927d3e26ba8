"""The keeper against an API server that keeps versions, as the real one does. Time is a variable."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from llm_operator.certificate_writer import PASS_SECONDS, WEBHOOK_CONFIGURATION, CertificateKeeper
from llm_operator.certificates import Certificates, authorities_in, service_names
from llm_operator.kube import SECRET, ApiError, Document, Kind
from tests.webhook.reviews import NOW

SECRET_NAME = "llm-sidecar-webhook-certificate"
CONFIGURATION = "llm-sidecar"


class Cluster:
    """One Secret and one webhook configuration."""

    def __init__(self) -> None:
        self.now = NOW
        self.secret: Document | None = None
        client = {"service": {"name": "llm-sidecar-webhook"}}
        self.configuration: Document | None = {
            "metadata": {"name": CONFIGURATION, "resourceVersion": "1"},
            "webhooks": [
                {"name": "inject.llm-sidecar.io", "failurePolicy": "Fail", "clientConfig": dict(client)},
                {"name": "warn.llm-sidecar.io", "failurePolicy": "Ignore", "clientConfig": dict(client)},
            ],
        }
        self.writes: list[str] = []
        self.before_write: Callable[[], None] = lambda: None
        self.failure: Exception | None = None
        self._version = 1

    async def get(self, kind: Kind, *, namespace: str | None, name: str) -> Document | None:
        if self.failure is not None:
            raise self.failure
        if kind is SECRET:
            assert (namespace, name) == ("llm-system", SECRET_NAME)
            return copy.deepcopy(self.secret)
        assert (kind, namespace, name) == (WEBHOOK_CONFIGURATION, None, CONFIGURATION)
        return copy.deepcopy(self.configuration)

    async def create(self, kind: Kind, document: Document) -> None:
        self._hook()
        assert kind is SECRET
        if self.secret is not None:
            raise ApiError(409, "AlreadyExists")
        assert document["metadata"]["namespace"] == "llm-system"
        self.secret = copy.deepcopy(document)
        self._stamp(self.secret, "create secret")

    async def apply(self, kind: Kind, document: Document) -> None:
        self._hook()
        stored = self.secret if kind is SECRET else self.configuration
        assert stored is not None
        if document["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict")
        if kind is SECRET:
            stored.setdefault("data", {}).update(document["data"])
        for theirs, ours in zip(stored.get("webhooks", []), document.get("webhooks", []), strict=True):
            assert theirs["name"] == ours["name"]
            theirs["clientConfig"].update(ours["clientConfig"])
        self._stamp(stored, f"apply {kind.name}")

    @property
    def certificates(self) -> Certificates:
        assert self.secret is not None
        data = {key: base64.b64decode(value) for key, value in self.secret["data"].items()}
        found = Certificates.from_secret(data)
        assert found is not None
        return found

    @property
    def bundles(self) -> set[bytes]:
        assert self.configuration is not None
        clients = [webhook["clientConfig"] for webhook in self.configuration["webhooks"]]
        return {base64.b64decode(client.get("caBundle", "")) for client in clients}

    def _hook(self) -> None:
        hook, self.before_write = self.before_write, lambda: None
        hook()

    def _stamp(self, document: Document, write: str) -> None:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)
        self.writes.append(write)


def _keeper(cluster: Cluster) -> CertificateKeeper:
    return CertificateKeeper(
        cluster,
        namespace="llm-system",
        secret=SECRET_NAME,
        webhook_configuration=CONFIGURATION,
        service_names=service_names("llm-sidecar-webhook", namespace="llm-system"),
        clock=lambda: cluster.now,
    )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_the_first_pass_makes_everything_and_the_next_writes_nothing(cluster: Cluster) -> None:
    keeper = _keeper(cluster)
    await keeper.ensure()
    assert cluster.bundles == {cluster.certificates.trusted}
    assert cluster.secret is not None
    assert cluster.secret["type"] == "kubernetes.io/tls"
    assert cluster.writes == ["create secret", "apply MutatingWebhookConfiguration"]
    await keeper.ensure()
    assert len(cluster.writes) == 2


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"tls.crt": "", "tls.key": ""},
        {"tls.crt": "not base64!"},
        {"ca.crt": "Z2FyYmFnZQ==", "ca.key": "", "tls.crt": "", "tls.key": ""},
        {"ca.crt": 7},
    ],
    ids=["none", "empty", "empty-values", "no-base64", "garbage", "no-text"],
)
async def test_a_secret_without_usable_content_is_filled_and_keeps_the_rest(
    cluster: Cluster, data: dict[str, Any] | None
) -> None:
    """The chart may lay an empty one ready, so that the controller need not be allowed to create Secrets."""
    cluster.secret = {"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}, "type": "Opaque", "data": data or {}}
    await _keeper(cluster).ensure()
    assert cluster.bundles == {cluster.certificates.trusted}
    assert (cluster.secret["type"], cluster.secret["metadata"]["labels"]) == ("Opaque", {"a": "b"})


async def test_a_bundle_that_somebody_emptied_is_restored(cluster: Cluster) -> None:
    """Helm does that on an upgrade where the template names the field."""
    keeper = _keeper(cluster)
    await keeper.ensure()
    assert cluster.configuration is not None
    cluster.configuration["webhooks"][1]["clientConfig"].pop("caBundle")
    await keeper.ensure()
    assert cluster.bundles == {cluster.certificates.trusted}


async def test_the_bundle_is_complete_before_the_new_authority_signs(cluster: Cluster) -> None:
    """Passes go on for most of a year; whatever is stored for the pods is trusted already when it is stored."""
    keeper = _keeper(cluster)
    await keeper.ensure()
    shown, authorities = cluster.certificates.serving.certificate, {cluster.certificates.authority.certificate}
    for _ in range(260 * 2):
        cluster.now += timedelta(hours=12)
        trusted = cluster.bundles
        await keeper.ensure()
        certificates = cluster.certificates
        authorities.add(certificates.authority.certificate)
        if certificates.serving.certificate != shown:
            shown = certificates.serving.certificate
            assert _bundle_has_issuer(trusted, shown)
        assert cluster.bundles == {certificates.trusted}
    assert len(authorities) == 2


def _bundle_has_issuer(bundles: set[bytes], certificate: Any) -> bool:
    (bundle,) = bundles
    return any(certificate.issuer == authority.subject for authority in authorities_in(bundle))


async def test_it_works_from_an_expired_state(cluster: Cluster) -> None:
    keeper = _keeper(cluster)
    await keeper.ensure()
    old = cluster.certificates
    cluster.now += timedelta(days=800)
    await keeper.ensure()
    assert cluster.certificates.authority != old.authority
    assert cluster.certificates.serving.certificate.not_valid_after_utc > cluster.now
    assert cluster.bundles == {cluster.certificates.trusted}


async def test_of_two_writers_at_the_first_start_one_wins_and_both_agree(cluster: Cluster) -> None:
    first, second = _keeper(cluster), _keeper(cluster)
    winner = Cluster()
    await _keeper(winner).ensure()

    def meanwhile() -> None:
        cluster.secret = copy.deepcopy(winner.secret)

    cluster.before_write = meanwhile
    with pytest.raises(ApiError, match="409"):
        await first.ensure()
    assert cluster.bundles == {b""}, "the one that lost must not publish an authority that nobody stored"
    await asyncio.gather(first.ensure(), second.ensure(), return_exceptions=True)
    assert cluster.certificates.authority == winner.certificates.authority or cluster.secret == winner.secret
    assert cluster.bundles == {cluster.certificates.trusted}


async def test_a_writer_with_an_old_view_cannot_take_trust_back(cluster: Cluster) -> None:
    """It read before the other renewed the authority, and writes after."""
    keeper, other = _keeper(cluster), _keeper(cluster)
    await keeper.ensure()
    assert cluster.configuration is not None
    cluster.configuration["webhooks"][0]["clientConfig"]["caBundle"] = ""
    stale = copy.deepcopy(cluster.configuration)
    cluster.now += timedelta(days=250)
    await other.ensure()
    renewed = cluster.bundles
    fresh, cluster.configuration = cluster.configuration, stale

    def meanwhile() -> None:
        cluster.configuration = fresh

    cluster.before_write = meanwhile
    with pytest.raises(ApiError, match="409"):
        await keeper.ensure()
    assert cluster.bundles == renewed


@pytest.mark.looptime
async def test_it_goes_on_whatever_fails(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.failure = ApiError(403, "Forbidden")
    running = asyncio.create_task(_keeper(cluster).run())
    await asyncio.sleep(PASS_SECONDS * 3 + 1)
    assert "403 Forbidden" in caplog.text
    cluster.failure = RuntimeError("anything")
    await asyncio.sleep(PASS_SECONDS)
    cluster.failure = None
    await asyncio.sleep(PASS_SECONDS)
    assert cluster.bundles == {cluster.certificates.trusted}
    running.cancel()


@pytest.mark.looptime
async def test_a_lost_race_is_no_warning(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.failure = ApiError(409, "Conflict")
    running = asyncio.create_task(_keeper(cluster).run())
    await asyncio.sleep(1)
    running.cancel()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_without_the_configuration_the_certificates_are_kept_and_it_is_told(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.configuration = None
    await _keeper(cluster).ensure()
    assert cluster.certificates.serving.certificate.not_valid_after_utc > cluster.now
    assert f"no MutatingWebhookConfiguration {CONFIGURATION}" in caplog.text


async def test_no_key_is_logged(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await _keeper(cluster).ensure()
    assert "made a certificate authority" in caplog.text
    assert "PRIVATE KEY" not in caplog.text
