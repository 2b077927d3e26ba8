"""The cluster for the tests of this folder, and what they put on it.

A cluster that runs already (`make cluster-up`) is used and left alone; one that was brought up for the tests is taken
down after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import images as image_builds
from tests.cluster import providers, stages
from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tell_figure: Callable[[str], None]) -> Iterator[Cluster]:
    """A real Kubernetes. Mark the test with `needs("cluster")`."""
    provider = providers.choose()
    with providers.alone():
        was_up = provider.is_up()
        kubeconfig = provider.up()
    yield Cluster(kubeconfig=kubeconfig, provider=provider, builder=providers.builder())
    if not was_up:
        with providers.alone(), stages.stage("end"):
            provider.down()
    # Other folders' conftests import this fixture, and each has one of its own: the last to come ends first.
    if took := stages.untold():
        tell_figure(f"{provider.name} and its images: {took}")


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> image_builds.Images:
    """Both images, from the Dockerfiles that ship, on the nodes."""
    with providers.alone():
        tags = {name: image_builds.build(name, builder=cluster.builder) for name in image_builds.IMAGES}
    return image_builds.Images(**{name: cluster.load_image(tag) for name, tag in tags.items()})


@pytest.fixture(scope="session")
def program_image(cluster: Cluster) -> str:
    """An image with Python and a shell, on the nodes: a place for a test's own program."""
    return cluster.load_image(cluster.program_image)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Makes namespaces that are deleted after the test, such as `namespace(labels=RESTRICTED)`."""
    with ExitStack() as stack:
        yield lambda prefix="test", labels=None: stack.enter_context(cluster.namespace(prefix, labels=labels))
