"""Making cached answers void: at once, for all proxies, whatever is under way.

Nothing is looked for and nothing is listed. Every entry names the numbers (epochs) under which it was asked for, and a
purge counts some of them up: those of a team, a provider, a model or one answer. An answer whose request began before
is then stored under numbers that nobody asks for any more. Whoever cannot import this does the same by `HINCRBY` on the
fields that `contract/keys.py` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract import keys
from llm_sidecar.store import Script

if TYPE_CHECKING:
    from llm_sidecar.store import Store

_LUA: Final = files("llm_sidecar.cache") / "lua"
PURGE: Final = Script(name="purge", source=(_LUA / "purge.lua").read_text(encoding="utf-8"))
PURGE_KEY: Final = Script(name="purge_key", source=(_LUA / "purge_key.lua").read_text(encoding="utf-8"))
MOST_PURGED_KEYS: Final = 4096
"""So many purges of one answer are remembered for a team, for Redis must not have to remember ever more. When there are
more, the oldest is forgotten, and all that was asked for before it is void: whatever was under way then, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """What becomes void of one team's answers. Without any of these: all."""

    provider: str | None = None
    """`NAMESPACE/NAME`."""
    model: str | None = None
    """Of that provider, by the name that it knows."""
    not_before: int | None = None
    """Unix seconds: what was asked for earlier."""
    digest: str | None = None
    """One answer: `cache_key` of its line in the audit log."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The numbers to count up; none for one answer, whose purge is another one."""
        if self.digest is not None:
            return ()
        if self.provider is not None and self.model is not None:
            return (keys.cache_epoch_of_model(self.provider, self.model),)
        if self.provider is not None:
            return (keys.cache_epoch_of_provider(self.provider),)
        return (keys.CACHE_EPOCH_OF_TEAM,) if self.not_before is None else ()


async def purge(store: Store, team: str, what: Purge) -> None:
    """Purge answers of a team (`NAMESPACE/NAME`). Raises `StoreUnavailable`."""
    epochs = keys.cache_epochs(team)
    if what.digest is not None:
        wanted = (epochs, keys.cache_purged_keys(team), keys.cache_entry(team, what.digest))
        await store.run(PURGE_KEY, wanted, (keys.cache_epoch_of_key(what.digest), MOST_PURGED_KEYS))
        return
    await store.run(PURGE, (epochs,), ("" if what.not_before is None else what.not_before, *what.fields))
