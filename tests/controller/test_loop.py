"""The controller against an API server in memory, in virtual time."""

from __future__ import annotations

import json
import logging

import pytest

from llm_operator.kube import EVENT, LLM_PROVIDER, NAMESPACE, POD, SECRET, TEAM_QUOTA, ApiError
from tests.controller.cluster import SYSTEM, Cluster
from tests.controller.fake_kube import published

pytestmark = pytest.mark.looptime


async def test_a_claim_gets_its_secret_and_the_pod_its_hash() -> None:
    cluster = Cluster(redis_url="redis://:secret@redis:6379/0")
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()

    assert cluster.keys() == {"openai": "key-1"}
    secret = published(cluster.kube)["app", "llm-sidecar.app.default"]
    assert cluster.pod_hash() == secret["metadata"]["annotations"]["llm-sidecar.io/config-hash"]
    config = cluster.config()
    assert config is not None
    assert config.store.url is not None
    assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[:2] == ("True", "Ready")
    assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "CredentialsValid")[:2] == ("True", "KeyAccepted")
    assert cluster.condition(TEAM_QUOTA, "app", "default", "Programmed")[:2] == ("True", "Published")


async def test_once_settled_nothing_is_written_any_more() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        written = len(cluster.kube.writes)
        await cluster.settle(seconds=3500)

    assert cluster.kube.writes[written:] == []


async def test_a_restarted_controller_writes_nothing_where_all_is_well() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
    written = len(cluster.kube.writes)
    async with cluster.controller():
        await cluster.settle()

    assert [kind for kind, _ in cluster.kube.writes[written:]] == []


async def test_a_rotated_key_reaches_the_pods() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        before = cluster.pod_hash()
        cluster.secret(api_key="key-2")
        await cluster.settle(seconds=1)

    assert cluster.keys() == {"openai": "key-2"}
    assert cluster.pod_hash() not in {before, None}


async def test_an_edit_costs_as_many_calls_as_there_are_claims_and_pods_that_it_changes() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("other")
    cluster.team(namespace="other")
    cluster.pod(name="other", namespace="other", team="other/default")
    for number in range(20):
        cluster.pod(name=f"pod-{number}")
    async with cluster.controller():
        await cluster.settle(seconds=30)
        called = len(cluster.kube.calls)
        cluster.team(limits=[{"name": "daily", "per": "Day", "requests": 5}])
        await cluster.settle(seconds=30)

    calls = [f"{verb} {kind}" for verb, kind, _ in cluster.kube.calls[called:]]
    assert {one: calls.count(one) for one in calls} == {"apply secrets": 1, "patch pods": 21, "patch teamquotas": 1}


async def test_pods_are_told_no_faster_than_the_setting_says() -> None:
    cluster = Cluster(pod_patches_per_second=2)
    cluster.basics()
    for number in range(20):
        cluster.pod(name=f"pod-{number}")
    async with cluster.controller():
        await cluster.settle(seconds=5)
        told = [name for kind, name in cluster.kube.writes if kind == "pods"]
        assert 8 <= len(told) <= 11
        await cluster.settle(seconds=10)

    assert all(cluster.pod_hash(f"pod-{number}") for number in range(20))


async def test_finished_pods_are_left_alone_and_claim_nothing() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.pod(phase="Succeeded")
    async with cluster.controller():
        await cluster.settle()

    assert published(cluster.kube) == {}
    assert cluster.pod_hash() is None


async def test_a_revoked_claim_loses_its_keys_at_once() -> None:
    cluster = Cluster(redis_url="redis://:secret@redis:6379/0")
    cluster.basics()
    cluster.namespace("guest")
    cluster.team(allowedNamespaces={"from": "All"})
    cluster.pod(name="guest", namespace="guest")
    async with cluster.controller():
        await cluster.settle()
        assert cluster.keys("guest") == {"openai": "key-1"}
        cluster.team(allowedNamespaces={"from": "Same"})
        await cluster.settle(seconds=1)

        assert cluster.keys("guest") == {}
        config = cluster.config("guest")
        assert config is not None
        assert config.store.url is None
        assert cluster.keys() == {"openai": "key-1"}


async def test_a_namespace_that_loses_its_label_loses_the_claim() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("guest", tier="gold")
    cluster.team(allowedNamespaces={"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}})
    cluster.pod(name="guest", namespace="guest")
    async with cluster.controller():
        await cluster.settle()
        assert cluster.keys("guest") == {"openai": "key-1"}
        cluster.namespace("guest", tier="lead")
        await cluster.settle(seconds=1)

        assert cluster.keys("guest") == {}


async def test_a_forged_claim_gets_no_key() -> None:
    """Whoever may create pods can write our labels on them."""
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("thief")
    cluster.pod(name="thief", namespace="thief")
    cluster.pod(name="odd", namespace="thief", team="app/../../x")
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert cluster.keys("thief") == {}
    assert len(published(cluster.kube)) == 2


async def test_a_deleted_team_takes_the_keys_with_it() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        cluster.kube.drop(TEAM_QUOTA, "app", "default")
        await cluster.settle(seconds=1)

        assert cluster.keys() == {}


async def test_without_required_quotas_a_pod_without_one_gets_the_providers() -> None:
    cluster = Cluster(require_quota=False)
    cluster.basics()
    cluster.kube.drop(TEAM_QUOTA, "app", "default")
    async with cluster.controller():
        await cluster.settle(seconds=10)

    assert cluster.keys() == {"openai": "key-1"}


async def test_a_deleted_provider_leaves_the_documents() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider("second", allowedNamespaces={"from": "All"})
    async with cluster.controller():
        await cluster.settle()
        assert cluster.keys() == {"openai": "key-1", "second": None}
        cluster.kube.drop(LLM_PROVIDER, SYSTEM, "openai")
        await cluster.settle(seconds=1)

        assert cluster.keys() == {"second": None}


async def test_a_foreign_provider_that_admits_all_gets_no_traffic() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("foreign")
    cluster.provider("tempting", "foreign", allowedNamespaces={"from": "All"})
    async with cluster.controller():
        await cluster.settle()
        assert cluster.keys() == {"openai": "key-1"}
        cluster.team(providers=["foreign/tempting"])
        await cluster.settle(seconds=1)

        assert cluster.keys() == {"foreign/tempting": None}


async def test_a_secret_of_a_claims_own_namespace_is_read_and_no_other() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("idle")
    reference = {"secretKeyRef": {"name": "own", "key": "api-key"}}
    for namespace in ("app", "idle"):
        cluster.secret("own", namespace, api_key="own-key")
        cluster.provider("own", namespace, credentials=reference)
    async with cluster.controller():
        await cluster.settle()

    assert cluster.keys()["app/own"] == "own-key"
    assert ("list", "secrets", "idle") not in cluster.kube.calls
    assert cluster.condition(LLM_PROVIDER, "idle", "own", "CredentialsValid")[:2] == ("Unknown", "NotChecked")


async def test_the_secret_of_a_claim_without_pods_goes_after_an_hour() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        cluster.kube.drop(POD, "app", "pod")
        await cluster.settle(seconds=3000)
        assert cluster.keys() == {"openai": "key-1"}
        await cluster.settle(seconds=700)

        assert published(cluster.kube) == {}
        ledger = cluster.kube.objects["configmaps"][SYSTEM, "llm-sidecar-published"]
        assert ledger["data"] == {}


async def test_a_pod_that_comes_back_in_time_keeps_the_secret() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        cluster.kube.drop(POD, "app", "pod")
        await cluster.settle(seconds=3000)
        cluster.pod(name="next")
        await cluster.settle(seconds=3000)

        assert cluster.keys() == {"openai": "key-1"}


async def test_a_deleted_secret_is_made_anew_for_the_next_pod() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle(seconds=60)
        cluster.kube.drop(SECRET, "app", "llm-sidecar.app.default")
        cluster.pod(name="next")
        await cluster.settle()

        assert cluster.keys() == {"openai": "key-1"}


async def test_an_unlabelled_secret_is_told_with_the_line_that_opens_it() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.secret(labelled=False, api_key="key-1")
    async with cluster.controller():
        await cluster.settle()
        status, reason, message = cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "CredentialsValid")
        assert (status, reason) == ("False", "SecretNotLabelled")
        assert message.endswith("kubectl label secret openai --namespace llm-system llm-sidecar.io/credentials=true")
        assert cluster.keys() == {}
        cluster.secret(api_key="key-1")
        await cluster.settle(seconds=2)

        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[0] == "True"
        assert cluster.keys() == {"openai": "key-1"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"other": "x"}, "KeyNotFound", id="no-such-key"),
        pytest.param({"api-key": "with space"}, "InvalidValue", id="not-for-a-header"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told(values: dict[str, str], reason: str) -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.secret(values=values)
    async with cluster.controller():
        await cluster.settle()

    assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "CredentialsValid")[:2] == ("False", reason)
    assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Programmed")[:2] == ("False", "NotUsable")


async def test_a_missing_secret_is_told_and_noticed_when_it_comes() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.kube.drop(SECRET, SYSTEM, "openai")
    async with cluster.controller():
        await cluster.settle()
        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[:2] == ("False", "SecretNotFound")
        cluster.secret(api_key="key-1")
        await cluster.settle()

        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[0] == "True"


async def test_a_refused_key_is_told_and_stays_published() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.refused_keys.add("key-1")
    async with cluster.controller():
        await cluster.settle()
        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[:2] == ("False", "KeyRejected")
        assert cluster.keys() == {"openai": "key-1"}
        cluster.secret(api_key="key-2")
        await cluster.settle()

        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[0] == "True"


async def test_a_key_is_asked_about_once_in_a_while_and_not_with_every_event() -> None:
    cluster = Cluster(key_check_seconds=600)
    cluster.basics()
    async with cluster.controller():
        for number in range(10):
            cluster.pod(name=f"pod-{number}")
            await cluster.settle()
        assert cluster.asked == 1
        await cluster.settle(seconds=1200)

    assert cluster.asked in {2, 3}


async def test_a_bad_resource_is_told_and_holds_up_no_other() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider("bad", timeouts={"connectSeconds": -1})
    cluster.provider("typo", type="OpenAi")
    cluster.team("bad", "app", timeZone="Nowhere/City")
    async with cluster.controller():
        await cluster.settle()

    status, reason, message = cluster.condition(LLM_PROVIDER, SYSTEM, "bad", "Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert message.startswith("spec.timeouts.connectSeconds: ")
    assert "Fix: " in message
    assert cluster.condition(LLM_PROVIDER, SYSTEM, "typo", "Accepted")[1:] == (
        "UnknownType",
        "spec.type: no provider of type OpenAi is registered. Fix: did you mean OpenAI?",
    )
    assert cluster.condition(TEAM_QUOTA, "app", "bad", "Accepted")[2].startswith("spec.timeZone: ")
    assert cluster.keys() == {"openai": "key-1"}


async def test_a_quota_that_cannot_be_read_any_more_keeps_what_was_published() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        before = published(cluster.kube)
        cluster.team(laterField=1)
        await cluster.settle()

        assert published(cluster.kube) == before
        assert cluster.condition(TEAM_QUOTA, "app", "default", "Accepted")[1] == "InvalidSpec"


async def test_a_team_that_names_missing_providers_says_so() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("foreign")
    cluster.provider("closed", "foreign")
    cluster.team(providers=["openai", "absent"])
    cluster.team("other", providers=["foreign/closed"])
    async with cluster.controller():
        await cluster.settle()

    status, reason, message = cluster.condition(TEAM_QUOTA, "app", "default", "Accepted")
    assert (status, reason) == ("False", "ProviderNotFound")
    assert message.startswith("spec.providers[1] (absent): ")
    assert cluster.condition(TEAM_QUOTA, "app", "other", "Accepted")[1] == "ProviderNotAllowed"
    assert cluster.keys() == {"openai": "key-1"}


async def test_a_namespace_that_cannot_be_written_fails_alone_and_is_told() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.namespace("locked")
    cluster.team(namespace="locked")
    cluster.pod(name="locked", namespace="locked", team="locked/default")
    refused = ApiError(403, "Forbidden")
    cluster.kube.failures = lambda verb, kind, name: (
        refused if (verb, kind, name) == ("apply", SECRET, "llm-sidecar.locked.default") else None
    )
    async with cluster.controller():
        await cluster.settle(seconds=20)
        assert cluster.keys() == {"openai": "key-1"}
        status, reason, message = cluster.condition(TEAM_QUOTA, "locked", "default", "Programmed")
        assert (status, reason) == ("False", "PublishFailed")
        assert "locked/default in locked" in message
        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Programmed")[1] == "PublishFailed"
        cluster.kube.failures = lambda _verb, _kind, _name: None
        await cluster.settle(seconds=150)

        assert cluster.condition(TEAM_QUOTA, "locked", "default", "Ready")[0] == "True"
        assert cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Ready")[0] == "True"


async def test_a_namespace_whose_secrets_may_not_be_read_is_told() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.provider("own", "app", credentials={"secretKeyRef": {"name": "own", "key": "k"}})
    refused = ApiError(403, "Forbidden")
    cluster.kube.failures = lambda verb, kind, name: refused if (verb, kind, name) == ("list", SECRET, "app") else None
    async with cluster.controller():
        await cluster.settle()

    assert cluster.condition(LLM_PROVIDER, "app", "own", "CredentialsValid")[1] == "SecretNotReadable"
    assert cluster.keys() == {"openai": "key-1"}


async def test_a_namespace_that_is_going_is_left_alone() -> None:
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        going = {"metadata": {"name": "app", "deletionTimestamp": "2026-11-22T00:00:00Z"}}
        cluster.kube.put(NAMESPACE, going)
        await cluster.settle()
        written = len(cluster.kube.writes)
        cluster.secret(api_key="key-2")
        await cluster.settle()

        assert ("secrets", "llm-sidecar.app.default") not in cluster.kube.writes[written:]


async def test_secrets_that_are_not_read_yet_keep_running_pods_as_they_are() -> None:
    """A controller that starts must not publish documents without keys until it has read them."""
    cluster = Cluster()
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
    away = ApiError(500, "InternalError")
    cluster.kube.failures = lambda verb, kind, _name: away if (verb, kind) == ("list", SECRET) else None
    async with cluster.controller():
        await cluster.settle(seconds=60)
        assert cluster.keys() == {"openai": "key-1"}


async def test_a_deletion_that_no_watch_told_of_is_noticed_by_the_next_listing() -> None:
    cluster = Cluster(resync_seconds=300)
    cluster.basics()
    async with cluster.controller():
        await cluster.settle()
        del cluster.kube.objects["llmproviders"][SYSTEM, "openai"]
        await cluster.settle(seconds=310)

        assert cluster.keys() == {}


async def test_no_key_is_in_a_log_an_event_or_a_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cluster = Cluster(redis_url="redis://:redis-password@redis:6379/0")
    cluster.basics()
    cluster.refused_keys.add("key-1")
    cluster.kube.failures = lambda verb, _kind, _name: (
        ApiError(500, "InternalError") if verb in {"apply", "create"} and len(cluster.kube.calls) % 3 else None
    )
    async with cluster.controller():
        await cluster.settle(seconds=200)

    told = caplog.text + json.dumps(
        [list(cluster.kube.objects[kind.plural].values()) for kind in (LLM_PROVIDER, TEAM_QUOTA, POD, EVENT)]
    )
    assert "KeyRejected" in told
    assert "key-1" not in told
    assert "redis-password" not in told


async def test_an_event_tells_of_a_change_of_readiness_and_not_of_each_look() -> None:
    cluster = Cluster()
    cluster.basics()
    cluster.refused_keys.add("key-2")
    async with cluster.controller():
        await cluster.settle()
        cluster.secret(api_key="key-2")
        await cluster.settle(seconds=1000)

    reasons = [one["reason"] for one in cluster.kube.objects["events"].values() if "openai" in one["metadata"]["name"]]
    assert reasons == ["Ready", "KeyRejected"]
