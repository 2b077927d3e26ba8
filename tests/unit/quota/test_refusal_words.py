"""What an application is told of a refusal: never sooner, and never surer, than is known."""

from __future__ import annotations

import pytest

from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.contract.windows import Per
from llm_sidecar.quota import QuotaRefusal
from llm_sidecar.quota_error import told_to_application
from llm_sidecar.record import RequestRecord


def refusal(*, used: int, reserved: int, retry_after_ms: int, unit: LimitUnit = LimitUnit.TOKENS) -> QuotaRefusal:
    return QuotaRefusal(
        limit_name="daily",
        unit=unit,
        per=None if unit is LimitUnit.CONCURRENT else Per.DAY,
        limit=100,
        used=used,
        reserved=reserved,
        requested=10,
        resets_at_ms=None if unit is LimitUnit.CONCURRENT else 10**13,
        retry_after_ms=retry_after_ms,
        never_fits=False,
    )


def test_how_long_other_requests_run_is_not_promised() -> None:
    for unit in (LimitUnit.CONCURRENT, LimitUnit.TOKENS):
        told = told_to_application(
            RequestRecord("id", "ns/team"), refusal(used=0, reserved=100, retry_after_ms=1000, unit=unit)
        )
        assert str(told).endswith("Running requests hold the rest: try again in about 1 s")
        assert told.should_retry


@pytest.mark.parametrize(("retry_after_ms", "seconds", "helps"), [(9_001, 10, True), (10_001, 11, False)])
def test_what_is_used_comes_back_with_the_next_window(retry_after_ms: int, seconds: int, helps: bool) -> None:
    told = told_to_application(
        RequestRecord("id", "ns/team"), refusal(used=95, reserved=0, retry_after_ms=retry_after_ms)
    )
    assert str(told).endswith(f"this request needs 10. The window ends in {seconds} s")
    assert told.should_retry is helps
