"""The store of the kind that its URL names."""

from __future__ import annotations

from typing import Final, Unpack

from llm_sidecar.contract.redis_url import Kind, parse_redis_url
from llm_sidecar.redis_breaker import OnChange
from llm_sidecar.redis_cluster import ClusterStore
from llm_sidecar.redis_node import NodeOptions
from llm_sidecar.redis_sentinel import SentinelStore
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import SharedStore

_STORES: Final[dict[Kind, type[RedisStore | SentinelStore | ClusterStore]]] = {
    "single": RedisStore,
    "sentinel": SentinelStore,
    "cluster": ClusterStore,
}


def make_store(
    url: str, *, ca_bundle: str | None = None, on_change: OnChange | None = None, **options: Unpack[NodeOptions]
) -> SharedStore:
    """A store, not connected yet. Raises `InvalidStoreURL`."""
    return _STORES[parse_redis_url(url).kind](url, ca_bundle=ca_bundle, on_change=on_change, **options)
