"""A real Prometheus in a pod of the test cluster, which discovers what it scrapes as the Prometheus Operator's do.

Built from its released Go module, as the cluster's own programs are: Debian's package has no discovery of pods.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import urlencode

from tests.cluster import binaries, images, pods, providers
from tests.cluster.cluster import RESTRICTED, Cluster
from tests.cluster.commands import ClusterError, run
from tests.cluster.scrape_configuration import Configuration, scrape_configurations

PORT: Final = 9090
NAME: Final = "prometheus"
_MODULE: Final = binaries.Module(name=NAME, programs={NAME: "github.com/prometheus/prometheus/cmd/prometheus"})
_TAGS: Final = "remove_all_sd,enable_kubernetes_sd"
"""Without them the clients of two dozen clouds would be compiled, too."""
_ENTRYPOINT: Final = f'["/{NAME}"]'
_INTERVAL: Final = "1s"
_DISCOVERY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' newest value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A server that runs."""

    cluster: Cluster
    namespace: str

    def query(self, expression: str) -> list[Sample]:
        """What an expression says now."""
        answer = self._get("query", query=expression)
        return [Sample(one["metric"], float(one["value"][1])) for one in answer["result"]]

    def wait_for(self, expression: str, *, count: int = 1) -> list[Sample]:
        """The expression's samples, once there are so many of them. A failure tells what the targets' scrapes say."""
        found: list[Sample] = []

        def are_there() -> bool:
            found[:] = self.query(expression)
            return len(found) == count

        try:
            self.cluster.wait_until(are_there, what=f"{count} samples of {expression}", seconds=_DISCOVERY_SECONDS)
        except ClusterError as failure:
            failure.add_note(f"there are {found}; the targets are:\n{json.dumps(self.targets(), indent=1)}")
            raise
        return found

    def targets(self) -> list[Mapping[str, str]]:
        """What is scraped, with the last error of each."""
        return [
            {**one["labels"], "url": one["scrapeUrl"], "health": one["health"], "error": one["lastError"]}
            for one in self._get("targets", state="active")["activeTargets"]
        ]

    def _get(self, path: str, **parameters: str) -> Any:
        proxy = f"/api/v1/namespaces/{self.namespace}/pods/{NAME}:{PORT}/proxy"
        answer = json.loads(self.cluster.text("get", "--raw", f"{proxy}/api/v1/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def running(cluster: Cluster, pod_monitors: Sequence[Mapping[str, Any]]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes what these PodMonitors select, and goes away afterwards."""
    with providers.alone():
        image = _build_image(cluster)
    jobs = [job for pod_monitor in pod_monitors for job in scrape_configurations(pod_monitor)]
    with cluster.namespace(NAME, labels=RESTRICTED) as namespace:
        try:
            cluster.apply(_account(namespace))
            cluster.apply([_configuration(jobs), _pod(image)], namespace=namespace)
            cluster.wait_for(f"pod/{NAME}", "condition=Ready", namespace=namespace)
            yield Prometheus(cluster=cluster, namespace=namespace)
        finally:
            rights = (f"clusterrole/{namespace}", f"clusterrolebinding/{namespace}")
            cluster.text("delete", *rights, "--ignore-not-found", "--wait=false")


def _build_image(cluster: Cluster) -> str:
    """An image that holds the program and nothing else."""
    with patch.dict(os.environ, GOFLAGS=f"-tags={_TAGS}"):
        program = binaries.program(_MODULE, NAME)
    # The folder's name tells version and flags.
    tag = f"localhost/llm-{NAME}:{hashlib.sha256(program.parent.name.encode()).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        shutil.copy(program, files)
        if isinstance(cluster.builder, images.Buildah):
            cluster.builder.from_files(tag, files, entrypoint=_ENTRYPOINT)
        else:
            archive = Path(folder) / "files.tar"
            run("tar", "--create", "--file", archive, "--directory", files, ".")
            run("docker", "import", "--change", f"ENTRYPOINT {_ENTRYPOINT}", archive, tag)
    return cluster.load_image(tag)


def _account(namespace: str) -> list[Configuration]:
    """What its service discovery needs, cluster-wide: pods are anywhere."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": namespace},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": namespace},
            "subjects": [subject],
        },
    ]


def _configuration(jobs: Sequence[Configuration]) -> Configuration:
    document = {"global": {"scrape_interval": _INTERVAL, "scrape_timeout": _INTERVAL}, "scrape_configs": list(jobs)}
    # JSON is YAML, too.
    data = {"prometheus.yml": json.dumps(document, indent=1)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}


def _pod(image: str) -> Configuration:
    container = pods.container(
        NAME,
        image=image,
        args=[
            "--config.file=/etc/prometheus-test/prometheus.yml",
            "--storage.tsdb.path=/data",
            f"--web.listen-address=0.0.0.0:{PORT}",
        ],
        ports=[{"containerPort": PORT}],
        readinessProbe={"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
        volumeMounts=[
            {"name": "configuration", "mountPath": "/etc/prometheus-test"},
            {"name": "data", "mountPath": "/data"},
        ],
    )
    volumes = [{"name": "configuration", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}]
    return pods.pod(NAME, pods.spec(container, serviceAccountName=NAME, volumes=volumes))
