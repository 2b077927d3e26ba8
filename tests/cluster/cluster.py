"""A running cluster as tests use it: kubectl's answers as objects, namespaces that go away, waiting with a reason."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.cluster import images
from tests.cluster.commands import ClusterError, CommandFailed, run
from tests.cluster.providers import Provider

Manifest: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path
"""An object, several of them, YAML text, or a file or folder of it."""

POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 60.0
"""A pod runs within ten; the rest is for a machine that is busy."""

RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
"""Labels of a namespace that admits only pods of the restricted profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that answers."""

    kubeconfig: Path
    provider: Provider
    builder: images.Builder

    @property
    def program_image(self) -> str:
        """An image with Python and a shell, which `load_image` gives to the nodes: a place for a test's own program."""
        return self.builder.base

    def text(self, *arguments: str | Path, stdin: str | None = None, timeout_seconds: float = 300) -> str:
        """What kubectl prints."""
        kubeconfig = f"--kubeconfig={self.kubeconfig}"
        return run(self.provider.kubectl, kubeconfig, *arguments, stdin=stdin, timeout_seconds=timeout_seconds)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> Any:
        """What kubectl answers, as objects."""
        return json.loads(self.text(*arguments, "--output=json", stdin=stdin))

    def apply(self, manifest: Manifest, *arguments: str, namespace: str | None = None) -> Any:
        """Create or change objects; returns them as the API server stored them."""
        place = [f"--namespace={namespace}"] if namespace else []
        if isinstance(manifest, Path):
            return self.kubectl("apply", f"--filename={manifest}", *place, *arguments)
        return self.kubectl("apply", "--filename=-", *place, *arguments, stdin=_document(manifest))

    def wait_for(
        self, resource: str, condition: str, *, namespace: str | None = None, seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait for `condition=Ready`, `jsonpath=…`, `create` or `delete`; a failure describes the object."""
        place = [f"--namespace={namespace}"] if namespace else []
        try:
            self.text(
                *("wait", resource, f"--for={condition}", f"--timeout={seconds:.0f}s", *place),
                timeout_seconds=seconds + 10,
            )
        except CommandFailed as failure:
            raise ClusterError(f"{failure}\n{self.describe(resource, namespace=namespace)}") from None

    def wait_until(self, holds: Callable[[], bool], *, what: str, seconds: float = WAIT_SECONDS) -> float:
        """Poll for what `kubectl wait` cannot watch; returns how many seconds it took."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                raise ClusterError(f"not so after {seconds:.0f} s: {what}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def describe(self, resource: str, *, namespace: str | None = None) -> str:
        """What a person would look at first."""
        place = [f"--namespace={namespace}"] if namespace else []
        try:
            return self.text("describe", resource, *place)
        except CommandFailed as failure:
            return failure.output

    @contextmanager
    def namespace(self, prefix: str = "test", *, labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A namespace of one's own, deleted afterwards without waiting for its end."""
        name = f"{prefix}-{secrets.token_hex(3)}"
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            # Without its account, pods would be refused in the first instants.
            self.wait_for("serviceaccount/default", "create", namespace=name)
            yield name
        finally:
            self.text("delete", "namespace", name, "--wait=false")

    def load_image(self, tag: str) -> str:
        """Give an image that was built here to the nodes; returns its name."""
        self.provider.load(tag, builder=self.builder)
        return tag


def _document(manifest: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, Mapping):
        return json.dumps(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})
