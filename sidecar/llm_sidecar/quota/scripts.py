"""The Lua scripts of the quota, and the keys that each of them is given."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from llm_sidecar.contract import keys
from llm_sidecar.store import Script


def _script(name: str) -> Script:
    return Script(name=name, source=(files("llm_sidecar.quota") / "lua" / f"{name}.lua").read_text(encoding="utf-8"))


RESERVE: Final = _script("reserve")
SETTLE: Final = _script("settle")
RENEW: Final = _script("renew")
PROVIDER_TAKE: Final = _script("provider_take")
PROVIDER_RETURN: Final = _script("provider_return")


def quota_keys(team: str) -> tuple[str, str, str]:
    """All keys that the scripts touch, in their order. `team` is `NAMESPACE/NAME`."""
    return keys.quota_counters(team), keys.quota_leases(team), keys.quota_reservations(team)
