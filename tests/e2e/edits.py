"""A seeded sequence of what people do to providers, keys, teams and pods, and what the cluster has made of it.

The same edits in two pairs of namespaces must come to the same, but for the namespaces' names.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.contract.names import CONFIG_HASH_ANNOTATION, CONFIG_KEY, CONFIG_SECRET_TYPE, PodAnnotation
from tests.cluster import pods
from tests.e2e import resources
from tests.e2e.applications import INJECT, Applications
from tests.e2e.release import RELEASE

Edit = Callable[["World"], None]
"""One act of a person."""

_PROVIDERS: Final = ("red", "green", "blue")
_PODS: Final = ("first", "second", "third")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A namespace with providers, keys and pods, and another one with a team that may admit these pods."""

    ours: Applications
    theirs: Applications

    def prepare(self) -> None:
        """What is there before the edits: a provider, its key, and a pod of each team."""
        _let_the_controller_read_keys(self.ours)
        admit(from_="All")(self)
        key("red", number=0)(self)
        provider("red", priority=1)(self)
        for name in _PODS:
            pod(name, of_theirs=name == "third")(self)

    def state(self) -> dict[str, Any]:
        """All that the controller keeps in both namespaces, with their names replaced."""
        found = {"ours": self._state_of(self.ours), "theirs": self._state_of(self.theirs)}
        text = json.dumps(found, sort_keys=True)
        for name, applications in (("ours", self.ours), ("theirs", self.theirs)):
            text = text.replace(applications.namespace, name)
        return dict(json.loads(text))

    def _state_of(self, applications: Applications) -> dict[str, Any]:
        place = f"--namespace={applications.namespace}"
        kinds = "llmproviders,teamquotas,pods,secrets"
        items = applications.cluster.kubectl("get", kinds, place)["items"]
        secrets = {one["metadata"]["name"]: one for one in items if one.get("type") == CONFIG_SECRET_TYPE}
        return {
            "published": {name: _document(secret) for name, secret in secrets.items()},
            "statuses": dict(_statuses(items)),
            "pods": {one["metadata"]["name"]: _has_current_hash(one, secrets) for one in items if one["kind"] == "Pod"},
        }


def edits(*, seed: int, count: int) -> list[Edit]:
    """The sequence of a seed. It ends with edits of which each leaves something to do for every kind of object."""
    chance = random.Random(seed)
    return [
        *(_any_edit(chance, number) for number in range(count)),
        key("red", number=count),
        provider("red", priority=7),
    ]


def key(name: str, *, number: int) -> Edit:
    """A new key for a provider."""
    return lambda world: world.ours.apply(resources.credentials(name, f"sk-e2e-{name}-{number}"))


def provider(name: str, *, priority: int) -> Edit:
    """A provider, or another priority of it. It is Ready only once its key is there."""

    def edit(world: World) -> None:
        url = f"http://upstream.{world.ours.release.namespace}.svc:9901/v1"
        models = [{"name": "gpt-5-mini", "aliases": [name]}]
        world.ours.apply(resources.provider(name, "OpenAI", url=url, models=models, priority=priority))

    return edit


def without_provider(name: str) -> Edit:
    """The provider is deleted."""
    return lambda world: _delete(world.ours, "llmprovider", name)


def limit(tokens: int) -> Edit:
    """Another limit of the namespace's own team."""
    limits = [{"name": "daily", "per": "Day", "tokens": tokens}]
    return lambda world: world.ours.apply(resources.team_quota("default", limits=limits))


def admit(*, from_: str) -> Edit:
    """The other team admits all namespaces, or its own alone: with pods there, claims are granted and revoked."""
    quota = resources.team_quota("default", allowedNamespaces={"from": from_})
    return lambda world: world.theirs.apply(quota)


def pod(name: str, *, of_theirs: bool) -> Edit:
    """A pod of one of both teams in the place of what was there. It is never scheduled: what counts is its claim."""

    def edit(world: World) -> None:
        team = {PodAnnotation.TEAM.value: f"{world.theirs.namespace}/default"} if of_theirs else {}
        manifest = pods.pod(name, resources.specification(world.ours.waiting(), schedulerName="nobody"))
        manifest["metadata"]["annotations"] = {**INJECT, **team}
        _delete(world.ours, "pod", name)
        world.ours.apply(manifest)

    return edit


def _any_edit(chance: random.Random, number: int) -> Edit:
    name = chance.choice(_PROVIDERS)
    return chance.choice(
        [
            key(name, number=number),
            provider(name, priority=chance.randrange(9)),
            without_provider(name),
            limit(1000 + number),
            admit(from_="Same"),
            admit(from_="All"),
            pod(chance.choice(_PODS[:2]), of_theirs=False),
        ]
    )


def _delete(applications: Applications, kind: str, name: str) -> None:
    applications.text("delete", kind, name, "--ignore-not-found", *(["--force"] if kind == "pod" else []))


def _let_the_controller_read_keys(applications: Applications) -> None:
    """As the quick start says for teams that keep keys of their own."""
    account = f"--serviceaccount={applications.release.namespace}:{RELEASE}-controller"
    name = f"{RELEASE}-credentials"
    applications.text("create", "rolebinding", name, f"--clusterrole={name}", account)


def _document(secret: Any) -> Any:
    return json.loads(base64.b64decode(secret["data"][CONFIG_KEY]))


def _statuses(items: list[Any]) -> Iterator[tuple[str, Any]]:
    for one in items:
        if one["kind"] in {"LLMProvider", "TeamQuota"}:
            generation, status = one["metadata"]["generation"], one.get("status", {})
            conditions = [
                {key: condition[key] for key in _compared(condition["type"])}
                for condition in status.get("conditions", [])
            ]
            is_current = status.get("observedGeneration") == generation
            yield f"{one['kind']} {one['metadata']['name']}", {"conditions": conditions, "is current": is_current}


def _has_current_hash(pod: Any, secrets: dict[str, Any]) -> bool:
    [volume] = [one["secret"] for one in pod["spec"]["volumes"] if one.get("secret")]
    secret = secrets.get(volume["secretName"])
    wanted = secret["metadata"]["annotations"][CONFIG_HASH_ANNOTATION] if secret else None
    return bool(pod["metadata"]["annotations"].get(CONFIG_HASH_ANNOTATION) == wanted)


def _compared(condition_type: str) -> tuple[str, ...]:
    """What of a condition must be the same. How fast a provider answered is measured anew each time."""
    return ("type", "status") if condition_type == "Healthy" else ("type", "status", "reason", "message")
