"""A team's namespace: applications that ask for the proxy, and what is seen of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_sidecar.contract.names import SIDECAR_CONTAINER, PodAnnotation
from tests.cluster import pods
from tests.cluster.cluster import Cluster
from tests.e2e import resources
from tests.e2e.release import Release

INJECT: Final = {PodAnnotation.INJECT.value: "true"}


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one call of the program `steady_calls.py`."""

    began: float
    ended: float
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applications:
    """Those of one namespace."""

    release: Release
    namespace: str

    @property
    def cluster(self) -> Cluster:
        """Where they run."""
        return self.release.cluster

    def program(self, name: str, *arguments: str) -> resources.Object:
        """A container that runs a program of this folder."""
        return resources.program(name, image=self.release.program_image, arguments=arguments)

    def waiting(self, name: str = "app") -> resources.Object:
        """A container that does nothing until told."""
        container = self.program(name, "none.py")
        return {**container, "command": ["sh", "-c", pods.UNTIL_TOLD]}

    def deploy(
        self,
        name: str,
        *containers: resources.Object,
        first: Sequence[resources.Object] = (),
        annotations: Mapping[str, str] = INJECT,
        **fields: Any,
    ) -> None:
        """Create a Deployment whose pod asks for the proxy."""
        spec = resources.specification(*containers, first=first, **fields)
        self.apply(resources.deployment(name, spec, annotations=annotations))

    def run_job(self, name: str, *containers: resources.Object, first: Sequence[resources.Object] = ()) -> str:
        """Run a Job that asks for the proxy to its end; returns what its first container printed."""
        job = pods.job(name, resources.specification(*containers, first=first))
        job["spec"]["template"]["metadata"]["annotations"] = INJECT
        self.apply(job)
        self.cluster.wait_for(f"job/{name}", "condition=Complete", namespace=self.namespace)
        return self.text("logs", f"job/{name}", f"--container={containers[0]['name']}")

    def pod_of(self, name: str) -> str:
        """The name of a Deployment's one pod, once it runs."""
        self.cluster.wait_for(f"deployment/{name}", "condition=Available", namespace=self.namespace)
        found = self.cluster.kubectl("get", "pods", f"--selector=app={name}", f"--namespace={self.namespace}")["items"]
        [pod] = [one for one in found if "deletionTimestamp" not in one["metadata"]]
        return str(pod["metadata"]["name"])

    def pod(self, name: str) -> Any:
        """A pod as the API server has it."""
        return self.cluster.kubectl("get", "pod", name, f"--namespace={self.namespace}")

    def text(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints about this namespace."""
        return self.cluster.text(*arguments[:1], f"--namespace={self.namespace}", *arguments[1:], stdin=stdin)

    def execute(self, pod: str, *command: str, container: str = "app", stdin: str = "") -> str:
        """What a command inside a container prints."""
        return self.text("exec", "--stdin", pod, f"--container={container}", "--", *command, stdin=stdin)

    def calls(self, pod: str) -> list[Call]:
        """What a pod's steady calls came to so far."""
        lines = self.text("logs", pod, "--container=app", "--tail=-1").splitlines()
        return [Call(**json.loads(line)) for line in lines if line.startswith("{") and line.endswith("}")]

    def restarts(self, pod: str) -> int:
        """How often the pod's proxy was started again."""
        [status] = [one for one in self.pod(pod)["status"]["initContainerStatuses"] if one["name"] == SIDECAR_CONTAINER]
        return int(status["restartCount"])

    def refusal(self, deployment: str) -> str:
        """What the event of a Deployment's ReplicaSet says about a pod that was refused."""
        told: list[str] = []

        def is_told() -> bool:
            events = self.cluster.kubectl("get", "events", f"--namespace={self.namespace}")["items"]
            told[:] = [
                event["message"]
                for event in events
                if event["reason"] == "FailedCreate" and event["involvedObject"]["name"].startswith(f"{deployment}-")
            ]
            return bool(told)

        self.cluster.wait_until(is_told, what=f"an event tells why deployment/{deployment} gets no pod")
        return told[0]

    def apply(self, manifest: resources.Object) -> None:
        """Create or change an object, beside the programs that pods of this namespace mount."""
        self.cluster.apply([resources.programs(), manifest], namespace=self.namespace)
