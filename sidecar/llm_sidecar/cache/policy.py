"""What may be answered from the cache, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import RequestType
from llm_sidecar.contract.team_quota_resource import CachedGenerations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_sidecar.formats.base import ParsedRequest

STALE_SECONDS: Final = 3600
"""An answer stays in the store for so long after its time, for those who would rather have it than an error."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What a team lets the cache answer."""

    generations: CachedGenerations = CachedGenerations.DETERMINISTIC
    max_ttl_seconds: int = 86_400

    def allows(self, request: ParsedRequest) -> bool:
        """True where a stored answer may stand for a provider's."""
        if request.stateful or not request.repeatable:
            return False
        if request.call.type is not RequestType.GENERATION:
            return True
        match self.generations:
            case CachedGenerations.NONE:
                return False
            case CachedGenerations.DETERMINISTIC:
                return request.deterministic
            case CachedGenerations.ALL:
                return True

    def ttl_seconds(self, request_type: RequestType, provider_ttl_seconds: Mapping[RequestType, int]) -> int:
        """How long an answer is fresh: the provider's time for its type, within the team's bound; 0 is never."""
        return min(provider_ttl_seconds.get(request_type, 0), self.max_ttl_seconds)

    def kept_seconds(self, ttl_seconds: int) -> int:
        """How long the store has it. The team's bound is one for that, too: it may be what its data may not outlive."""
        return max(ttl_seconds, min(ttl_seconds + STALE_SECONDS, self.max_ttl_seconds))
