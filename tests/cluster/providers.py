"""Where a cluster comes from: the first of three ways that this machine offers."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from tests.cluster import binaries, images, kind, one_node
from tests.cluster.commands import ClusterUnavailable, run, succeeds
from tests.cluster.places import CACHE

LOADER_VARIABLE: Final = "LLM_SIDECAR_IMAGE_LOADER"
"""For a cluster given by KUBECONFIG: the command that gives its nodes an image, the archive's path as `{archive}`."""


class Provider(Protocol):
    """A way to have a cluster."""

    @property
    def name(self) -> str:
        """As a person would call it."""

    @property
    def kubectl(self) -> Path:
        """The kubectl that fits."""

    @property
    def helm(self) -> Path:
        """A Helm."""

    def prepare(self) -> None:
        """Have all that its first start would wait for."""

    def is_up(self) -> bool:
        """Whether it runs already."""

    def up(self) -> Path:
        """Bring it up, or find it running; returns the path of its kubeconfig."""

    def down(self) -> None:
        """Take it down."""

    def status(self) -> Sequence[str]:
        """What runs where, a line each."""

    def load(self, tag: str, *, builder: images.Builder) -> None:
        """Give its nodes an image."""


class Given:
    """The cluster that KUBECONFIG names. It is used as it is, and stays."""

    name: Final = "the cluster of KUBECONFIG"

    @property
    def kubectl(self) -> Path:
        return _installed("kubectl")

    @property
    def helm(self) -> Path:
        return _helm()

    def prepare(self) -> None:
        """It is there."""

    def is_up(self) -> bool:
        return True

    def up(self) -> Path:
        path = Path(os.environ["KUBECONFIG"])
        run(self.kubectl, "--kubeconfig", path, "get", "--raw", "/readyz", "--request-timeout=10s")
        return path

    def down(self) -> None:
        """It was not made here."""

    def status(self) -> Sequence[str]:
        return (run(self.kubectl, "--kubeconfig", os.environ["KUBECONFIG"], "get", "nodes").rstrip(),)

    def load(self, tag: str, *, builder: images.Builder) -> None:
        loader = os.environ.get(LOADER_VARIABLE)
        if not loader:
            raise ClusterUnavailable(
                f"how to give images to the cluster of KUBECONFIG is not known: set {LOADER_VARIABLE}, such as "
                "'minikube image load {archive}'"
            )
        with images.archived(tag, builder=builder) as archive:
            run(*shlex.split(loader.replace("{archive}", shlex.quote(str(archive)))))


class Kind:
    """kind, in Docker."""

    name: Final = "kind"

    @property
    def kubectl(self) -> Path:
        return _installed("kubectl")

    @property
    def helm(self) -> Path:
        return _helm()

    def prepare(self) -> None:
        """It fetches what it needs when it starts."""

    def is_up(self) -> bool:
        return kind.is_running()

    def up(self) -> Path:
        return kind.up()

    def down(self) -> None:
        kind.down()

    def status(self) -> Sequence[str]:
        return (f"{kind.NAME}: {'made' if kind.is_running() else 'not made'}, kubeconfig {kind.KUBECONFIG}",)

    def load(self, tag: str, *, builder: images.Builder) -> None:
        kind.load(tag, builder=builder)


class OneNode:
    """Upstream's binaries as processes of this machine."""

    name: Final = "the one-node cluster"

    @property
    def kubectl(self) -> Path:
        return binaries.program(binaries.KUBERNETES, "kubectl")

    @property
    def helm(self) -> Path:
        # Not the machine's: the one whose version the tests are written for.
        return binaries.program(binaries.HELM, "helm")

    def prepare(self) -> None:
        one_node.prepare()

    def is_up(self) -> bool:
        return one_node.is_healthy()

    def up(self) -> Path:
        return one_node.up()

    def down(self) -> None:
        one_node.down()

    def status(self) -> Sequence[str]:
        return one_node.status()

    def load(self, tag: str, *, builder: images.Builder) -> None:
        one_node.load(tag, builder=builder)


def choose() -> Provider:
    """The first way that this machine offers. Raises `ClusterUnavailable`, which tells why there is none."""
    if os.environ.get("KUBECONFIG"):
        return Given()
    if kind.is_possible():
        return Kind()
    reason = one_node.why_not()
    if reason is None:
        return OneNode()
    raise ClusterUnavailable(
        f"no Kubernetes for tests: KUBECONFIG is not set, kind with a running Docker is not there, and {reason}"
    )


def builder() -> images.Builder:
    """What builds images here."""
    if shutil.which("docker") and succeeds("docker", "info"):
        return images.Docker()
    if shutil.which("buildah") and os.geteuid() == 0:
        return images.Buildah()
    raise ClusterUnavailable("images need a running Docker, or buildah and root")


@contextmanager
def alone() -> Iterator[None]:
    """Wait until nobody else on this machine changes the cluster or builds its images, and keep them waiting."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _installed(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise ClusterUnavailable(f"`{name}` is not installed")
    return Path(path)


def _helm() -> Path:
    installed = shutil.which("helm")
    return Path(installed) if installed else binaries.program(binaries.HELM, "helm")
