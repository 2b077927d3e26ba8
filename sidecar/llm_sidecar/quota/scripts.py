"""The Lua scripts of the quota, and the keys that each of them is given."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from llm_sidecar.contract import keys
from llm_sidecar.store import Script


def _source(name: str) -> str:
    return (files("llm_sidecar.quota") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _script(name: str) -> Script:
    return Script(name=name, source=_source(name))


def _counting_script(name: str) -> Script:
    """One that begins with what all that add to counters share."""
    return Script(name=name, source=f"{_source('counting')}\n{_source(name)}")


RESERVE: Final = _counting_script("reserve")
SETTLE: Final = _counting_script("settle")
RENEW: Final = _script("renew")
RESTORE: Final = _script("restore")
SHARE: Final = _script("share")
PROVIDER_TAKE: Final = _script("provider_take")
PROVIDER_RETURN: Final = _script("provider_return")


def quota_keys(team: str) -> tuple[str, str, str, str, str]:
    """The keys of reservations and settlements, in the scripts' order. `team` is `NAMESPACE/NAME`."""
    return (
        keys.quota_counters(team),
        keys.quota_leases(team),
        keys.quota_reservations(team),
        keys.quota_ledger(team),
        keys.quota_alerts(team),
    )


def share_keys(team: str) -> tuple[str, str, str]:
    """The keys of `share.lua`."""
    return keys.quota_counters(team), keys.quota_shares(team), keys.quota_share_leases(team)
