"""Wherever the controller is killed, and in whichever order it hears of things: the cluster ends up the same."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from llm_operator.kube import LLM_PROVIDER, POD, TEAM_QUOTA
from tests.controller.cluster import SYSTEM, Cluster
from tests.controller.fake_kube import FakeKube

pytestmark = pytest.mark.looptime


def _build(cluster: Cluster) -> None:
    cluster.basics()
    cluster.namespace("guest", tier="gold")
    cluster.secret("own", "guest", api_key="guest-key")
    cluster.provider("own", "guest", credentials={"secretKeyRef": {"name": "own", "key": "api-key"}})
    cluster.team("shared", allowedNamespaces={"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}})
    cluster.pod(name="guest-1", namespace="guest", team="app/shared")
    cluster.pod(name="guest-2", namespace="guest", team="app/shared")
    cluster.provider("broken", timeouts={"connectSeconds": 0})


def _change(cluster: Cluster) -> None:
    cluster.secret(api_key="key-2")
    cluster.namespace("guest", tier="lead")
    cluster.team(providers=["openai"], limits=[{"name": "daily", "per": "Day", "tokens": 7}])
    cluster.provider("late", models=[{"name": "n"}], allowedNamespaces={"from": "All"})
    cluster.kube.drop(LLM_PROVIDER, SYSTEM, "broken")


async def _undisturbed() -> str:
    cluster = Cluster(redis_url="redis://redis:6379/0")
    _build(cluster)
    async with cluster.controller():
        await cluster.settle(seconds=30)
        _change(cluster)
        await cluster.settle(seconds=30)
    return cluster.final_state()


@pytest.mark.parametrize("after_the_effect", [False, True], ids=["before-the-effect", "after-the-effect"])
@pytest.mark.parametrize("die_at", range(1, 46))
async def test_a_controller_killed_at_any_call_converges_to_the_same_state(die_at: int, after_the_effect: bool) -> None:
    expected = await _undisturbed()
    cluster = Cluster(FakeKube(seed=die_at), redis_url="redis://redis:6379/0")
    _build(cluster)
    cluster.kube.die_at, cluster.kube.die_after_the_effect = die_at, after_the_effect
    await cluster.run_until_killed(seconds=30)
    _change(cluster)
    cluster.kube.die_at = die_at
    await cluster.run_until_killed(seconds=30)
    cluster.kube.die_at = None
    async with cluster.controller():
        await cluster.settle(seconds=30)

    assert cluster.final_state() == expected


@pytest.mark.parametrize("seed", range(25))
async def test_changes_in_any_order_and_at_any_moment_converge_to_the_same_state(seed: int) -> None:
    choose = random.Random(seed)
    cluster = Cluster(FakeKube(seed=seed), redis_url="redis://redis:6379/0")
    steps: list[Callable[[], None]] = [
        cluster.basics,
        lambda: cluster.namespace("app", tier=choose.choice(["gold", "lead"])),
        lambda: cluster.team(allowedNamespaces={"from": choose.choice(["Same", "All"])}),
        lambda: cluster.secret(api_key=f"key-{choose.randrange(5)}"),
        lambda: cluster.pod(name=f"pod-{choose.randrange(4)}"),
        lambda: cluster.provider(f"p{choose.randrange(3)}", choose.choice([SYSTEM, "app"])),
        lambda: cluster.team(f"t{choose.randrange(2)}", limits=[]),
        lambda: _drop_any(cluster, choose),
    ]
    cluster.namespace(SYSTEM)
    cluster.namespace("app")
    async with cluster.controller():
        for _ in range(60):
            choose.choice(steps)()
            await cluster.settle(seconds=choose.choice([0, 0, 0.01, 0.05, 0.3, 2]))
        await cluster.settle(seconds=4000)
        state = cluster.final_state()
    async with cluster.controller():
        await cluster.settle(seconds=60)

    assert cluster.final_state() == state


def _drop_any(cluster: Cluster, choose: random.Random) -> None:
    kind = choose.choice([LLM_PROVIDER, TEAM_QUOTA, POD])
    there = sorted(cluster.kube.objects[kind.plural])
    if there:
        cluster.kube.drop(kind, *choose.choice(there))
