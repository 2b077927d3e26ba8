"""The chart, installed by a real Helm in a namespace of its own, and the image that the tests' own pods run."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chart.rendering import CHART
from tests.cluster.cluster import Cluster
from tests.cluster.commands import run
from tests.cluster.images import Images
from tests.cluster.places import ROOT

RELEASE: Final = "llm-sidecar"
NAMESPACE_PREFIX: Final = "e2e-system"
_DOCKERFILE: Final = Path(__file__).parent / "image" / "Dockerfile"
_INSTALL_SECONDS: Final = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An installed operator."""

    cluster: Cluster
    namespace: str
    images: Images
    program_image: str

    def install(self) -> None:
        """Install, or bring back what is missing, and wait until both Deployments are ready."""
        self._helm(
            *("upgrade", "--install", RELEASE, CHART, "--values=-", "--wait", f"--timeout={_INSTALL_SECONDS}s"),
            # CRDs outlive a release, and other tests apply them without Helm.
            "--take-ownership",
            values=self._values(),
        )

    def uninstall(self) -> None:
        """Remove the release."""
        self._helm("uninstall", RELEASE, "--ignore-not-found")

    def test(self) -> str:
        """`helm test`."""
        return self._helm("test", RELEASE, f"--timeout={_INSTALL_SECONDS}s")

    def told(self) -> str:
        """All that Helm tells about the release: notes, values, manifests, hooks."""
        return self._helm("get", "all", RELEASE) + self._helm("status", RELEASE)

    def pods(self, component: str) -> list[Any]:
        """A component's pods that are not on their way out."""
        selector = f"--selector=app.kubernetes.io/component={component}"
        found = self.cluster.kubectl("get", "pods", f"--namespace={self.namespace}", selector)["items"]
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def wait_for(self, component: str) -> None:
        """Wait until a component's Deployment is available, with all of its pods."""
        place = f"deployment/{RELEASE}-{component}"
        self.cluster.text("rollout", "status", place, f"--namespace={self.namespace}", f"--timeout={_INSTALL_SECONDS}s")

    @contextmanager
    def scaled_to_zero(self, component: str) -> Iterator[None]:
        """Without any pod of a component; as before afterwards."""
        place = (f"deployment/{RELEASE}-{component}", f"--namespace={self.namespace}")
        replicas = self.cluster.kubectl("get", *place)["spec"]["replicas"]
        try:
            self.cluster.text("scale", *place, "--replicas=0")
            selector = f"--selector=app.kubernetes.io/component={component}"
            self.cluster.text("wait", "pods", selector, place[1], "--for=delete", f"--timeout={_INSTALL_SECONDS}s")
            yield
        finally:
            self.cluster.text("scale", *place, f"--replicas={replicas}")
            self.wait_for(component)

    def _helm(self, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        return run(
            *(self.cluster.provider.helm, f"--kubeconfig={self.cluster.kubeconfig}", *arguments),
            f"--namespace={self.namespace}",
            stdin=json.dumps(values) if values is not None else None,
        )

    def _values(self) -> dict[str, Any]:
        return {
            "image": _image(self.images.operator),
            "sidecar": {"image": _image(self.images.sidecar)},
            "redis": {"bundled": {"image": _image(self.program_image)}},
        }


@contextmanager
def installed(cluster: Cluster, images: Images, program_image: str) -> Iterator[Release]:
    """A release that goes away afterwards. Those of interrupted runs go first: two would inject the same pods."""
    _remove_left_over(cluster)
    namespace = f"{NAMESPACE_PREFIX}-{secrets.token_hex(3)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    release = Release(cluster=cluster, namespace=namespace, images=images, program_image=program_image)
    try:
        release.install()
        yield release
    finally:
        release.uninstall()
        cluster.text("delete", "namespace", namespace, "--wait=false")


def build_program_image(cluster: Cluster) -> str:
    """The image of the tests' own programs, on the nodes; built anew only where it or the lock changed."""
    content = _DOCKERFILE.read_bytes() + (ROOT / "requirements" / "dev.txt").read_bytes()
    tag = f"localhost/llm-e2e:{hashlib.sha256(content + cluster.builder.base.encode()).hexdigest()[:12]}"
    cluster.builder.build(_DOCKERFILE, tag=tag)
    return cluster.load_image(tag)


def _remove_left_over(cluster: Cluster) -> None:
    helm = (cluster.provider.helm, f"--kubeconfig={cluster.kubeconfig}")
    for one in json.loads(run(*helm, "list", "--all-namespaces", "--output=json")):
        if one["namespace"].startswith(NAMESPACE_PREFIX):
            run(*helm, "uninstall", one["name"], f"--namespace={one['namespace']}")
            cluster.text("delete", "namespace", one["namespace"], "--wait=false", "--ignore-not-found")


def _image(reference: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}
