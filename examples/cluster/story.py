"""What the demo shows, step by step: each is a command that anybody could type, and what it prints."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from examples.cluster.stage import SYSTEM, TEAM, Stage, manifest
from llm_sidecar.contract.names import INJECTED_LABEL

PROVIDERS: Final = ("openai", "anthropic", "google")
_FIRST_ANSWERS: Final = 5
"""Lines of the application: one for each SDK, and the first of those that go on coming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The demo, once the operator is installed."""

    stage: Stage
    names: dict[str, str]
    """Images that the manifests name, and those that were built."""

    def tell(self) -> None:
        """All of it."""
        self._providers_and_a_team()
        self._an_application()
        self._the_injected_pod()
        self._a_limit_that_changes()
        self._mistakes()

    def _providers_and_a_team(self) -> None:
        self.stage.screen.heading("The platform team shares providers, and says what a team may use")
        self._apply("simulator.yaml")
        self.stage.cluster.wait_for("deployment/simulator", "condition=Available", namespace=SYSTEM)
        self._apply("providers.yaml")
        self._apply("team.yaml")
        for provider in PROVIDERS:
            self.stage.cluster.wait_for(f"llmprovider/{provider}", "condition=Ready", namespace=SYSTEM)
        self.stage.cluster.wait_for("teamquota/default", "condition=Ready", namespace=TEAM)
        self._show("get", "llmproviders,teamquotas", "--all-namespaces", "--output=wide")

    def _an_application(self) -> None:
        self.stage.screen.heading("An application asks for the proxy by one annotation")
        self._apply("application.yaml")
        self.stage.cluster.wait_for("deployment/assistant", "condition=Available", namespace=TEAM)
        self._wait_until(lambda: len(self._said().splitlines()) >= _FIRST_ANSWERS, "the application gets answers")
        self.stage.screen.command(f"kubectl logs deployment/assistant --namespace={TEAM}")
        self.stage.screen.output("\n".join(self._said().splitlines()[:_FIRST_ANSWERS]))

    def _the_injected_pod(self) -> None:
        self.stage.screen.heading("Its pod has a proxy that was ready first; the keys of the SDKs are tokens for that")
        columns = (
            "POD:.metadata.name,FIRST:.spec.initContainers[*].name,THEN:.spec.containers[*].name,"
            r"TEAM:.metadata.labels.llm-sidecar\.io/team,SECRET:.spec.volumes[?(@.name=='llm-sidecar-config')].secret.secretName"
        )
        self._show(
            *("get", "pods", f"--namespace={TEAM}", f"--selector={INJECTED_LABEL}=true"),
            f"--output=custom-columns={columns}",
        )
        self._show("exec", "deployment/assistant", f"--namespace={TEAM}", "--", "sh", "-c", "env | grep -E 'URL|KEY'")

    def _a_limit_that_changes(self) -> None:
        self.stage.screen.heading("A changed limit reaches running pods within seconds, without a restart")
        patch = '{"spec": {"limits": [{"name": "daily", "per": "Day", "requests": 1}]}}'
        began = time.monotonic()
        self._show("patch", "teamquota", "default", f"--namespace={TEAM}", "--type=merge", f"--patch={patch}")
        self._wait_until(lambda: "refused:" in self._said(), "the changed limit reaches the application")
        self.stage.screen.note(f"{time.monotonic() - began:.1f} s later the application's log says:")
        refused = next(line for line in self._said().splitlines() if line.startswith("refused:"))
        self.stage.screen.output(refused)

    def _mistakes(self) -> None:
        self.stage.screen.heading("What is wrong says so, with the fix")
        self._apply("mistakes.yaml")
        self.stage.cluster.wait_for("llmprovider/forgotten-label", "condition=Ready=False", namespace=SYSTEM)
        condition = "jsonpath={.status.conditions[?(@.type=='Ready')].message}"
        self._show("get", "llmprovider", "forgotten-label", f"--namespace={SYSTEM}", f"--output={condition}")
        events = (
            *("get", "events", f"--namespace={TEAM}", "--field-selector=reason=FailedCreate"),
            "--output=jsonpath={.items[0].message}",
        )
        self._wait_until(
            lambda: "denied the request" in self.stage.cluster.text(*events[:-1], "--output=yaml"),
            "an event tells why deployment/lost gets no pod",
        )
        self._show(*events)

    def _apply(self, name: str) -> None:
        self.stage.screen.command(f"kubectl apply --filename examples/cluster/manifests/{name}")
        self.stage.screen.output(self.stage.cluster.text("apply", "--filename=-", stdin=manifest(name, self.names)))

    def _show(self, *arguments: str) -> None:
        self.stage.screen.command(f"kubectl {shlex.join(arguments)}")
        self.stage.screen.output(self.stage.cluster.text(*arguments))

    def _said(self) -> str:
        return self.stage.cluster.text("logs", "deployment/assistant", f"--namespace={TEAM}", "--container=app")

    def _wait_until(self, holds: Callable[[], bool], what: str) -> None:
        self.stage.cluster.wait_until(holds, what=what)
