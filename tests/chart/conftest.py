"""What the chart's tests share."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Chart, helm_program


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart. Mark the test with `needs("helm")`."""
    return Chart(helm_program())
