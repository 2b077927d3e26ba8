"""Whatever sidecars do and suffer, in whatever order: the counters are the model's, and no limit is overrun."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.quota.machine import Place, QuotaMachine

EXAMPLES: Final = 12
STEPS: Final = 30
PHASES: Final = (Phase.explicit, Phase.reuse, Phase.generate)
"""No shrinking: windows end by the real clock, so that looking for a smaller example takes minutes."""


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("policy", ["Deny", "Allow", "LocalShare"])
def test_any_order_of_events_keeps_the_counters_true(store_place: Place, policy: str) -> None:
    machine = type("Machine", (QuotaMachine,), {"place": replace(store_place, policy=policy)})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            phases=PHASES,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
