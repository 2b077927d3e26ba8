"""The same cluster as in `tests/cluster`."""

from __future__ import annotations

from tests.cluster.conftest import cluster  # noqa: F401 - a fixture
