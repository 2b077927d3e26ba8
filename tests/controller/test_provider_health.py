"""Providers' health through the whole controller, against an API server in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from llm_operator.kube import EVENT, LLM_PROVIDER
from llm_operator.reconcile.health import Probe, ProbeOutcome
from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.traffic import Traffic
from tests.controller.cluster import SYSTEM, Cluster

pytestmark = pytest.mark.looptime

NAME = f"{SYSTEM}/openai"
FAILED = Probe(ProbeOutcome.FAILED, "No answer within 5 s.")
FAILING = Traffic(reporters=3, failing=3, failures=40, error_share=1.0, worst="server")


class Told:
    """Reports that a test writes."""

    def __init__(self) -> None:
        self.traffic: Traffic | None = Traffic()
        self.reads = 0

    async def read(self, providers: Sequence[Key]) -> Mapping[Key, Traffic] | None:
        self.reads += 1
        return dict.fromkeys(providers, self.traffic) if self.traffic is not None else None

    async def close(self) -> None:
        """Nothing to close."""


def _healthy(cluster: Cluster) -> tuple[str, str]:
    return cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Healthy")[:2]


def _events(cluster: Cluster) -> list[tuple[str, str]]:
    found = [
        (event["type"], event["reason"])
        for event in cluster.kube.objects[EVENT.plural].values()
        if event["involvedObject"]["name"] == "openai"
    ]
    return [event for event in found if event[1] != "Ready"]


def _gauge(cluster: Cluster, provider: str = "openai") -> float | None:
    return cluster.metrics.registry.get_sample_value("llm_provider_healthy", {"provider": provider})


def _status_writes(cluster: Cluster) -> int:
    return cluster.kube.writes.count((LLM_PROVIDER.plural, "openai"))


async def test_a_provider_that_answers_probes_is_healthy() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()

        assert _healthy(cluster) == ("True", "ProbeSucceeded")
        assert _gauge(cluster) == 1
    assert _events(cluster) == []


async def test_probes_keep_their_interval_with_some_spread() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider(
        credentials={"secretKeyRef": {"name": "openai", "key": "api-key"}}, healthCheck={"intervalSeconds": 10}
    )
    async with cluster.controller():
        await cluster.settle(seconds=1000)

    assert 91 <= len(cluster.probed) <= 112


async def test_a_provider_that_fails_is_told_of_at_once_and_so_is_its_recovery() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        cluster.probes[NAME] = FAILED
        await cluster.settle(seconds=45)

        assert _healthy(cluster) == ("False", "ProbeFailed")
        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[0] == "True"
        assert _gauge(cluster) == 0
        assert _events(cluster) == [("Warning", "ProbeFailed")]

        del cluster.probes[NAME]
        await cluster.settle(seconds=40)

        assert _healthy(cluster) == ("True", "ProbeSucceeded")
        assert _gauge(cluster) == 1
    assert _events(cluster) == [("Warning", "ProbeFailed"), ("Normal", "ProbeSucceeded")]


async def test_one_probe_that_fails_among_others_changes_nothing() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        written, probed = len(cluster.kube.writes), len(cluster.probed)
        cluster.probes[NAME] = FAILED
        while len(cluster.probed) == probed:
            await cluster.settle(seconds=0.5)
        del cluster.probes[NAME]
        await cluster.settle(seconds=100)

        assert cluster.kube.writes[written:] == []
        assert _healthy(cluster) == ("True", "ProbeSucceeded")


async def test_proxies_that_all_fail_outweigh_a_probe_that_succeeds() -> None:
    cluster = Cluster()
    cluster.basics()
    reports = cluster.reports = Told()
    async with cluster.controller():
        await cluster.settle(seconds=20)
        assert _healthy(cluster) == ("True", "ProbeSucceeded")

        reports.traffic = FAILING
        await cluster.settle(seconds=15)

        assert _healthy(cluster) == ("False", "ErrorRateHigh")
    assert _events(cluster) == [("Warning", "ErrorRateHigh")]


async def test_without_the_store_the_probe_alone_decides() -> None:
    cluster = Cluster()
    cluster.basics()
    reports = cluster.reports = Told()
    reports.traffic = None
    async with cluster.controller():
        await cluster.settle(seconds=20)

        assert _healthy(cluster) == ("True", "ProbeSucceeded")


async def test_a_passive_provider_is_never_probed() -> None:
    cluster = Cluster()
    cluster.basics()
    reports = cluster.reports = Told()
    cluster.provider(
        credentials={"secretKeyRef": {"name": "openai", "key": "api-key"}}, healthCheck={"mode": "Passive"}
    )
    async with cluster.controller():
        await cluster.settle(seconds=20)
        assert _healthy(cluster) == ("Unknown", "NoData")
        assert _gauge(cluster) is None

        reports.traffic = Traffic(reporters=2, milliseconds=400.0)
        await cluster.settle(seconds=15)
        assert _healthy(cluster) == ("True", "PassiveOnly")

    assert cluster.probed == []


async def test_figures_alone_are_written_at_most_every_thirty_seconds() -> None:
    cluster = Cluster()
    cluster.basics()
    reports = cluster.reports = Told()
    async with cluster.controller():
        await cluster.settle(seconds=40)
        written = _status_writes(cluster)
        for step in range(60):
            reports.traffic = Traffic(reporters=2, milliseconds=100.0 if step % 2 else 1000.0)
            await cluster.settle(seconds=10)

        assert 5 <= _status_writes(cluster) - written <= 20
    assert _events(cluster) == []


async def test_what_stays_the_same_is_not_written() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.reports = Told()
    async with cluster.controller():
        await cluster.settle(seconds=60)
        written = len(cluster.kube.writes)
        await cluster.settle(seconds=3000)

    assert cluster.kube.writes[written:] == []


async def test_a_restarted_controller_neither_forgets_nor_repeats_what_was_told() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.probes[NAME] = FAILED
    async with cluster.controller():
        await cluster.settle(seconds=60)
    written, told = _status_writes(cluster), _events(cluster)
    async with cluster.controller():
        await cluster.settle(seconds=60)

        assert _healthy(cluster) == ("False", "ProbeFailed")
    assert _status_writes(cluster) == written
    assert _events(cluster) == told == [("Warning", "ProbeFailed")]


async def test_only_providers_that_can_be_used_are_probed() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider("unknown", type="NoSuchType")
    cluster.provider("keyless", credentials={"secretKeyRef": {"name": "missing", "key": "api-key"}})
    async with cluster.controller():
        await cluster.settle(seconds=10)

        for name in ("unknown", "keyless"):
            assert cluster.condition(LLM_PROVIDER, SYSTEM, name, "Healthy")[:2] == ("Unknown", "NotChecked")
    assert set(cluster.probed) == {NAME}


async def test_a_deleted_provider_is_probed_no_more_and_its_series_ends() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        cluster.kube.drop(LLM_PROVIDER, SYSTEM, "openai")
        await cluster.settle()
        probed = len(cluster.probed)
        await cluster.settle(seconds=300)

        assert len(cluster.probed) == probed
        assert _gauge(cluster) is None


async def test_a_provider_outside_the_shared_namespaces_is_named_with_its_own() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider("openai", "app")
    async with cluster.controller():
        await cluster.settle()

        assert (_gauge(cluster), _gauge(cluster, "app/openai")) == (1, 1)


async def test_another_key_is_probed_at_once() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        probed = len(cluster.probed)
        cluster.secret(api_key="key-2")
        await cluster.settle(seconds=1)

        assert len(cluster.probed) == probed + 1
        assert _healthy(cluster) == ("True", "ProbeSucceeded")
