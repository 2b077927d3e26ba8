"""A cluster in memory with a controller in it, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic import SecretStr

from llm_operator.kube import LLM_PROVIDER, NAMESPACE, POD, SECRET, TEAM_QUOTA, Document, Kind
from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.health import Probe, ProbeOutcome
from llm_operator.reconcile.key_check import Verdict
from llm_operator.reconcile.loop import Reconciler
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.purge_store import Purges
from llm_operator.reconcile.report_reader import Reports
from llm_operator.reconcile.state import Surroundings
from llm_operator.reconcile.usage_reader import Usages
from llm_operator.settings import Settings
from llm_operator.status import Reason, Truth
from llm_sidecar.contract.config import ConfigDocument, parse_config
from llm_sidecar.contract.names import GROUP_VERSION
from llm_sidecar.contract.resources import LLMProviderSpec
from tests.controller.fake_kube import FakeKube, Killed, just_now, published

SYSTEM = "llm-system"


class Cluster:
    """See the module. Methods that change something act at once; `settle` lets the controller follow."""

    def __init__(self, kube: FakeKube | None = None, *, redis_url: str | None = None, **settings: Any) -> None:
        self.kube = kube or FakeKube()
        url = SecretStr(redis_url) if redis_url is not None else None
        self.settings = Settings(namespace=SYSTEM, redis_url=url, **settings)
        self.refused_keys: set[str] = set()
        self.asked = 0
        self.probed: list[str] = []
        self.probes: dict[str, Probe] = {}
        """What a probe of a provider comes to, where it does not succeed."""
        self.reports: Reports | None = None
        self.usages: Usages | None = None
        self.purges: Purges | None = None
        self.metrics = ControllerMetrics()
        self.reconciler: Reconciler | None = None

    async def probe(self, name: str, _spec: LLMProviderSpec, _credentials: Credentials) -> Probe:
        """A provider that answers, but for those of `probes`."""
        self.probed.append(name)
        working = Probe(ProbeOutcome.SUCCEEDED, "The provider accepted the key.", 120.0)
        return self.probes.get(name, working)

    async def ask(self, name: str, spec: LLMProviderSpec, credentials: Credentials) -> Verdict:
        """A provider that refuses some keys."""
        self.asked += 1
        assert credentials.credential is not None
        if credentials.credential.get_secret_value() in self.refused_keys:
            return Verdict(Truth.FALSE, Reason.KEY_REJECTED, "The provider refused the key with status 401.")
        return Verdict(Truth.TRUE, Reason.KEY_ACCEPTED, "The provider accepted the key.")

    @contextlib.asynccontextmanager
    async def controller(self) -> AsyncIterator[Reconciler]:
        """A running controller."""
        task = self.start()
        assert self.reconciler is not None
        try:
            yield self.reconciler
        finally:
            self.kube.listen(None)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def start(self) -> asyncio.Task[None]:
        """The same, for tests that end it themselves."""
        self.metrics = ControllerMetrics()
        clock = asyncio.get_running_loop().time
        surroundings = Surroundings(
            kube=self.kube,
            settings=self.settings,
            ask=self.ask,
            probe=self.probe,
            reports=self.reports,
            usages=self.usages,
            purges=self.purges,
            clock=clock,
            now=just_now,
            metrics=self.metrics,
        )
        self.reconciler = Reconciler(surroundings)
        self.kube.listen(self.reconciler.heard)
        return asyncio.create_task(self.reconciler.run())

    async def run_until_killed(self, *, seconds: float = 30) -> bool:
        """Run a controller; True if it was killed on the way."""
        task = self.start()
        done, _ = await asyncio.wait([task], timeout=seconds)
        self.kube.listen(None)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError | Killed | BaseExceptionGroup) for one in results)
        return bool(done)

    async def settle(self, *, seconds: float = 5) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    # --- what users do

    def namespace(self, name: str, **labels: str) -> None:
        self.kube.put(NAMESPACE, {"metadata": {"name": name, "labels": labels}})

    def provider(self, name: str = "openai", namespace: str = SYSTEM, **spec: Any) -> None:
        full = {"type": "OpenAI", "models": [{"name": "m"}]} | spec
        self._resource(LLM_PROVIDER, namespace, name, full)

    def team(self, name: str = "default", namespace: str = "app", **spec: Any) -> None:
        self._resource(TEAM_QUOTA, namespace, name, spec)

    def _resource(self, kind: Kind, namespace: str, name: str, spec: Document) -> None:
        metadata = {"namespace": namespace, "name": name}
        self.kube.put(kind, {"apiVersion": GROUP_VERSION, "kind": kind.name, "metadata": metadata, "spec": spec})

    def annotate(self, kind: Kind, namespace: str, name: str, **annotations: str) -> None:
        """What `kubectl annotate --overwrite` does."""
        document = self.kube.get_now(kind, namespace, name)
        assert document is not None
        document["metadata"].setdefault("annotations", {}).update(
            {f"llm-sidecar.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        )
        self.kube.put(kind, document)

    def secret(
        self,
        name: str = "openai",
        namespace: str = SYSTEM,
        *,
        labelled: bool = True,
        values: dict[str, str] | None = None,
        **more: str,
    ) -> None:
        labels = {"llm-sidecar.io/credentials": "true"} if labelled else {}
        plain = (values or {}) | {key.replace("_", "-"): value for key, value in more.items()}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        metadata = {"namespace": namespace, "name": name, "labels": labels}
        self.kube.put(SECRET, {"metadata": metadata, "data": data, "type": "Opaque"})

    def pod(
        self, name: str = "pod", namespace: str = "app", *, team: str = "app/default", phase: str = "Running"
    ) -> None:
        home, _, team_name = team.partition("/")
        labels = {
            "llm-sidecar.io/injected": "true",
            "llm-sidecar.io/team": team_name,
            "llm-sidecar.io/team-namespace": home,
        }
        before = self.kube.get_now(POD, namespace, name)
        annotations = before["metadata"].get("annotations", {}) if before is not None else {}
        metadata = {"namespace": namespace, "name": name, "labels": labels, "annotations": annotations}
        self.kube.put(POD, {"metadata": metadata, "spec": {}, "status": {"phase": phase}})

    def basics(self) -> None:
        """A shared provider with a key, a team, a pod of it."""
        self.namespace(SYSTEM)
        self.namespace("app")
        self.secret(api_key="key-1")
        self.provider(
            credentials={"secretKeyRef": {"name": "openai", "key": "api-key"}}, allowedNamespaces={"from": "All"}
        )
        self.team()
        self.pod()

    # --- what is there

    def config(self, namespace: str = "app", team: str = "app.default") -> ConfigDocument | None:
        """What the pods of a claim have."""
        secret = published(self.kube).get((namespace, f"llm-sidecar.{team}"))
        return parse_config(base64.b64decode(secret["data"]["config.json"])) if secret is not None else None

    def keys(self, namespace: str = "app", team: str = "app.default") -> dict[str, str | None]:
        """Providers and keys that the pods of a claim have."""
        config = self.config(namespace, team)
        assert config is not None, "nothing is published"
        return {
            entry.label: entry.credential.get_secret_value() if entry.credential is not None else None
            for entry in config.providers
        }

    def condition(self, kind: Kind, namespace: str, name: str, condition: str) -> tuple[str, str, str]:
        """Status, reason and message."""
        document = self.kube.get_now(kind, namespace, name)
        assert document is not None
        found = {one["type"]: one for one in document["status"]["conditions"]}[condition]
        assert found["observedGeneration"] == document["metadata"]["generation"]
        assert document["status"]["observedGeneration"] == document["metadata"]["generation"]
        return found["status"], found["reason"], found["message"]

    def pod_hash(self, name: str = "pod", namespace: str = "app") -> str | None:
        pod = self.kube.get_now(POD, namespace, name)
        assert pod is not None
        hashed: str | None = pod["metadata"].get("annotations", {}).get("llm-sidecar.io/config-hash")
        return hashed

    def final_state(self) -> str:
        """Everything that the controller is answerable for, as text."""
        statuses = {
            f"{kind.plural} {name}": [
                (one["type"], one["status"], one["reason"]) for one in document["status"]["conditions"]
            ]
            for kind in (LLM_PROVIDER, TEAM_QUOTA)
            for name, document in sorted(self.kube.objects[kind.plural].items())
        }
        pods = {str(name): self.pod_hash(name[1], name[0]) for name in sorted(self.kube.objects[POD.plural])}
        secrets = {str(name): secret["data"] for name, secret in sorted(published(self.kube).items())}
        return json.dumps([statuses, pods, secrets], indent=1)
