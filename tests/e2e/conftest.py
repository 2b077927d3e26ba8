"""An operator by Helm, a simulator, shared providers with keys, and namespaces whose pods may use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster import providers
from tests.cluster.cluster import RESTRICTED, Cluster
from tests.cluster.conftest import cluster, images  # noqa: F401 - fixtures
from tests.cluster.images import Images
from tests.e2e import resources
from tests.e2e.applications import Applications
from tests.e2e.release import Release, build_program_image, installed


@pytest.fixture(scope="session")
def release(cluster: Cluster, images: Images) -> Iterator[Release]:  # noqa: F811 - pytest's way to name a fixture
    """The operator, with providers for all three APIs that lead to a simulator."""
    with providers.alone():
        program_image = build_program_image(cluster)
    with installed(cluster, images, program_image) as release:
        cluster.apply(resources.upstreams(images.sidecar, program_image), namespace=release.namespace)
        for name in ("simulator", "upstream"):
            cluster.wait_for(f"deployment/{name}", "condition=Available", namespace=release.namespace)
        # Not before: a provider that does not answer is asked again after a while only.
        cluster.apply(resources.shared_providers(release.namespace), namespace=release.namespace)
        yield release


@pytest.fixture
def team(release: Release) -> Iterator[Callable[[], Applications]]:
    """Makes a namespace that enforces the restricted profile, with a TeamQuota for all its pods."""
    with ExitStack() as stack:

        def make() -> Applications:
            namespace = stack.enter_context(release.cluster.namespace("e2e", labels=RESTRICTED))
            release.cluster.apply(resources.team_quota("default"), namespace=namespace)
            return Applications(release=release, namespace=namespace)

        yield make
