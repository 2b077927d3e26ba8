"""A cluster of kind, where Docker runs: what a person has on their own machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.cluster import images
from tests.cluster.commands import run, succeeds
from tests.cluster.places import CACHE, ROOT

NAME: Final = "llm-sidecar"
"""As in `kind-config.yaml`."""

KUBECONFIG: Final = CACHE / "kind.kubeconfig"


def is_possible() -> bool:
    """Whether kind is installed and a Docker engine answers."""
    return all(map(shutil.which, ("docker", "kind", "kubectl"))) and succeeds("docker", "info")


def is_running() -> bool:
    """Whether the cluster has been made."""
    return NAME in run("kind", "get", "clusters").split()


def up() -> Path:
    """Make the cluster, or find it; returns the path of its kubeconfig."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if is_running():
        run("kind", "export", "kubeconfig", "--name", NAME, "--kubeconfig", KUBECONFIG)
    else:
        configuration = ROOT / "kind-config.yaml"
        run("kind", "create", "cluster", "--config", configuration, "--kubeconfig", KUBECONFIG, "--wait", "120s")
    return KUBECONFIG


def down() -> None:
    """Delete the cluster."""
    run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", KUBECONFIG)


def load(tag: str, *, builder: images.Builder) -> None:
    """Give an image to the node."""
    with images.archived(tag, builder=builder) as archive:
        run("kind", "load", "image-archive", archive, "--name", NAME)
