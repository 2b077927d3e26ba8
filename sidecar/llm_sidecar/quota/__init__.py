"""Quotas: nothing is called before its place in every limit is reserved, and everything reserved is settled."""

from llm_sidecar.quota.limits import LimitUnit, QuotaLimit, compile_limits
from llm_sidecar.quota.refusal import QuotaExceeded, QuotaRefusal, QuotaStoreUnavailable
from llm_sidecar.quota.reservation import Quota, Reservation, UsageSource

__all__ = [
    "LimitUnit",
    "Quota",
    "QuotaExceeded",
    "QuotaLimit",
    "QuotaRefusal",
    "QuotaStoreUnavailable",
    "Reservation",
    "UsageSource",
    "compile_limits",
]
