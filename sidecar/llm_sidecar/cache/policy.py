"""What may be answered from the cache, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_sidecar.contract.names import RequestType
from llm_sidecar.contract.team_quota_resource import CachedGenerations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_sidecar.formats.base import ParsedRequest


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What a team lets the cache answer."""

    generations: CachedGenerations = CachedGenerations.DETERMINISTIC
    max_ttl_seconds: int = 86_400

    def allows(self, request: ParsedRequest) -> bool:
        """True where a stored answer may stand for a provider's."""
        if request.stream or request.stateful:
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
        """How long an answer may be kept: the provider's time for its type, within the team's bound; 0 is never."""
        return min(provider_ttl_seconds.get(request_type, 0), self.max_ttl_seconds)
