"""From an LLMProvider's `type` to the class that speaks for it: registered in code, or by an entry point.

A package outside this one adds a type by the entry point group `llm_sidecar.providers`; its name is the `type`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import ClassVar

from llm_sidecar.providers.base import Provider, ProviderSettings, Transport

ENTRY_POINT_GROUP = "llm_sidecar.providers"


class UnknownProviderType(LookupError):
    """No class is registered for the type; the message lists those that are."""


class LLMProviderFactory:
    """Makes providers. Entry points are looked up at the first question, and each is imported when first needed."""

    _registered: ClassVar[dict[str, type[Provider]]] = {}

    @classmethod
    def register(cls, provider_class: type[Provider]) -> type[Provider]:
        """Make `provider_class` known under its `type`. Usable as a decorator; the last registration counts."""
        cls._registered[provider_class.type] = provider_class
        return provider_class

    @classmethod
    def types(cls) -> list[str]:
        """All types that `create` understands, sorted."""
        return sorted({*cls._registered, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})

    @classmethod
    def provider_class(cls, provider_type: str) -> type[Provider]:
        """The class for a type. Raises `UnknownProviderType`."""
        if provider_type not in cls._registered:
            points = entry_points(group=ENTRY_POINT_GROUP, name=provider_type)
            if not points:
                known = ", ".join(cls.types())
                raise UnknownProviderType(f"provider type {provider_type!r} is not known here; known are: {known}")
            cls._registered[provider_type] = next(iter(points)).load()
        return cls._registered[provider_type]

    @classmethod
    def create(cls, provider_type: str, settings: ProviderSettings, transport: Transport) -> Provider:
        """A provider of that type. Raises `UnknownProviderType`."""
        return cls.provider_class(provider_type)(settings, transport)
