"""Quotas: nothing is called before its place in every limit is reserved, and everything reserved is settled."""

from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.quota.demand import Charge, Demand
from llm_sidecar.quota.ledger import LedgerEntry
from llm_sidecar.quota.limits import QuotaLimit, compile_limits
from llm_sidecar.quota.refusal import QuotaExceeded, QuotaRefusal, QuotaStoreUnavailable
from llm_sidecar.quota.reservation import Reservation, UsageSource
from llm_sidecar.quota.team_quota import Quota

__all__ = [
    "Charge",
    "Demand",
    "LedgerEntry",
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
