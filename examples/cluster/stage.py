"""What the demo stands on: a cluster, both images, the chart, and namespaces of its own that go away again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from examples.cluster.screen import Screen
from tests.cluster import images, packages, providers
from tests.cluster.cluster import Cluster
from tests.cluster.commands import run
from tests.cluster.places import ROOT
from tests.e2e.release import build_program_image

MANIFESTS: Final = Path(__file__).with_name("manifests")
RELEASE: Final = "llm-sidecar"
SYSTEM: Final = "llm-system"
TEAM: Final = "payments"
_OURS: Final = {"llm-sidecar.io/demo": "true"}
"""Labels of a namespace that the demo made, and may therefore delete."""
_RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
_INSTALL_SECONDS: Final = 180


class DemoFailed(Exception):
    """Something did not happen as it should. The message says what, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A cluster that may carry the demo."""

    cluster: Cluster
    screen: Screen

    def build(self) -> dict[str, str]:
        """Make the images, and give them to the nodes; the names in the manifests, with those that stand for them."""
        with providers.alone():
            tags = {name: images.build(name, builder=self.cluster.builder) for name in images.IMAGES}
            application = build_program_image(self.cluster)
        for tag in tags.values():
            self.cluster.load_image(tag)
        return {
            "llm-sidecar:0.1.0": tags["sidecar"],
            "llm-operator:0.1.0": tags["operator"],
            "application-with-sdks:1": application,
        }

    def install(self, names: dict[str, str]) -> None:
        """Install the chart by Helm."""
        self._check_free()
        for namespace, labels in ((SYSTEM, _OURS), (TEAM, {**_OURS, **_RESTRICTED})):
            metadata = {"name": namespace, "labels": labels}
            self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        chart = ROOT / "charts" / RELEASE
        self.screen.command(f"helm upgrade --install {RELEASE} charts/{RELEASE} --namespace {SYSTEM} --wait")
        self._helm(
            *("upgrade", "--install", RELEASE, chart, f"--namespace={SYSTEM}", "--values=-"),
            # CRDs outlive a release.
            *("--take-ownership", "--wait", f"--timeout={_INSTALL_SECONDS}s"),
            stdin=json.dumps(_values(names)),
        )

    def remove(self) -> None:
        """Remove the release and the demo's namespaces, and nothing else."""
        self._helm("uninstall", RELEASE, f"--namespace={SYSTEM}", "--ignore-not-found", "--wait")
        selector = ",".join(f"{name}={value}" for name, value in _OURS.items())
        self.cluster.text("delete", "namespaces", f"--selector={selector}")

    def _check_free(self) -> None:
        """Two operators would both inject the same pods."""
        for release in json.loads(self._helm("list", "--all-namespaces", "--output=json")):
            if release["chart"].startswith(f"{RELEASE}-") and release["namespace"] != SYSTEM:
                raise DemoFailed(
                    f"release {release['name']} in namespace {release['namespace']} is the operator already, and two "
                    f"would inject the same pods. Fix: helm uninstall {release['name']} -n {release['namespace']}"
                )
        for namespace in self.cluster.kubectl("get", "namespaces")["items"]:
            metadata = namespace["metadata"]
            if metadata["name"] in {SYSTEM, TEAM} and not _OURS.items() <= metadata["labels"].items():
                raise DemoFailed(
                    f"namespace {metadata['name']} is there already, and is not the demo's. "
                    "Fix: delete it, or run the demo on another cluster"
                )

    def _helm(self, *arguments: str | Path, stdin: str | None = None) -> str:
        return run(self.cluster.provider.helm, f"--kubeconfig={self.cluster.kubeconfig}", *arguments, stdin=stdin)


@contextmanager
def cluster_for_demo(*, stays: bool) -> Iterator[Cluster]:
    """A running cluster is used and left running; one that was brought up for the demo goes down after it."""
    provider = providers.choose()
    packages.install_missing()
    with providers.alone():
        was_up = provider.is_up()
        kubeconfig = provider.up()
    try:
        yield Cluster(kubeconfig=kubeconfig, provider=provider, builder=providers.builder())
    finally:
        if not was_up and not stays:
            with providers.alone():
                provider.down()


def manifest(name: str, names: dict[str, str]) -> str:
    """One of the demo's files, with the images that were built in place of those that it names."""
    text = (MANIFESTS / name).read_text(encoding="utf-8")
    for written, built in names.items():
        text = text.replace(f"image: {written}", f"image: {built}")
    return text


def _values(names: dict[str, str]) -> dict[str, Any]:
    """The image of the application holds a Valkey, too: nothing is pulled from anywhere."""
    return {
        "image": _image(names["llm-operator:0.1.0"]),
        "sidecar": {"image": _image(names["llm-sidecar:0.1.0"])},
        "redis": {"bundled": {"image": _image(names["application-with-sdks:1"])}},
    }


def _image(reference: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}
