"""Every fault of the simulator, by what an application should get, and which calls meet it."""

from __future__ import annotations

from typing import Final

from llm_sidecar.simulate.faults import REDIRECTS
from tests.integration.proxy.simulated_traffic import CALLS, Asked

PACE: Final = "chunk_interval_ms=20"
"""With it the first content has arrived, and gone on to the application, before a stream breaks."""

OWN: Final = {"status=400": "invalid_request", "status=404": "not_found", "status=413": "too_long"}
"""Errors that the application must mend itself, and what they are called."""
KEY_ERRORS: Final = {"status=401": "authentication", "status=402": "quota_exhausted", "status=403": "authentication"}
"""About our key or account."""
FAILURES: Final = {
    "status=408": "timeout",
    "status=429": "rate_limited",
    "status=429,retry_after_seconds=7": "rate_limited",
    "status=429,retry_after_seconds=none": "rate_limited",
    "quota=exhausted": "quota_exhausted",
    "status=500": "server",
    "status=502": "server",
    "status=503": "overloaded",
    "status=503,retry_after_seconds=2.5": "overloaded",
    "status=504": "timeout",
    "status=529": "overloaded",
}
"""Another provider would be tried after these; and why."""
WAITS: Final = {
    "status=429": 1.0,
    "status=429,retry_after_seconds=7": 7.0,
    "status=503": 1.0,
    "status=503,retry_after_seconds=2.5": 2.5,
    "status=529": 1.0,
}
"""Seconds after which the provider wants to be asked again."""
ELSEWHERE: Final = tuple(f"redirect={status}" for status in REDIRECTS)
GARBAGE: Final = ("garbage=html", "garbage=json")
EARLY: Final = {"cut_after=0": "disconnected", "end_after=0": "interrupted"}
LATE: Final = tuple(f"{name}=2,{PACE}" for name in ("cut_after", "end_after", "error_after"))
BROKEN_BODIES: Final = {
    "cut_after=0": "disconnected",
    "end_after=0": "garbled_answer",
    "malformed_after=0": "garbled_answer",
}
SILENCE: Final = ("stall_after=0", "latency_ms=30000")
LATE_SILENCE: Final = f"stall_after=2,{PACE}"
MALFORMED_EARLY: Final = "malformed_after=0"
MALFORMED_LATE: Final = f"malformed_after=2,{PACE}"
ODD: Final = (
    *("", "cached_tokens=5", "thinking_tokens=7", "chunks=5", "answer_bytes=300", "latency_ms=5"),
    *("first_token_ms=5", "oversized_frame_bytes=100000"),
)
"""Nothing fails."""
SPARSE: Final = ("fail_times=7,status=503", "fail_percent=40,seed=3,status=503")
"""Only some of the requests fail."""
UNREADABLE: Final = ("statsu=500", "status=429,retry_after_seconds=99999999999", "latency_ms=0000000000000000060")

PLAIN: Final = tuple(name for name, call in CALLS.items() if call.shape == "plain")
STREAMS: Final = tuple(name for name, call in CALLS.items() if call.shape != "plain")
EVENTS: Final = tuple(name for name, call in CALLS.items() if call.shape == "events")
ARRAY: Final = "generate-array"

OBEYED: Final = (
    *((call, fault) for call in CALLS for fault in (*OWN, *KEY_ERRORS, *FAILURES, *ELSEWHERE, *GARBAGE, *ODD)),
    *((call, fault) for call in CALLS for fault in (*SPARSE, *UNREADABLE, "usage=none")),
    *((call, fault) for call in CALLS for fault in (*EARLY, *LATE, MALFORMED_EARLY, MALFORMED_LATE, "error_after=0")),
)
FAILED_OVER: Final = (
    *((call, fault) for call in CALLS for fault in (*KEY_ERRORS, *FAILURES, *ELSEWHERE, *GARBAGE)),
    *((call, fault) for call in CALLS for fault in EARLY),
    *((call, "error_after=0") for call in STREAMS),
)
ASKED: Final[tuple[Asked, ...]] = (
    *(("obedient", call, fault) for call, fault in OBEYED),
    *(("twice", call, fault) for call, fault in FAILED_OVER),
    *(("hasty", call, fault) for call in CALLS for fault in SILENCE),
    *(("hasty", call, LATE_SILENCE) for call in STREAMS),
    *(("locked", call, "") for call in CALLS),
    *(("doomed", call, "") for call in CALLS),
)
DIRECT: Final = tuple((call, fault) for call in CALLS for fault in (*OWN, *FAILURES, *ODD, *LATE, *UNREADABLE))
