"""From an LLMProvider's `type` to the class that speaks for it: registered, built in, or found by an entry point.

A package outside this one adds a type by the entry point group `llm_sidecar.providers`; its name is the `type`.
"""

from __future__ import annotations

import pkgutil
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

from llm_sidecar.providers.base import Provider, ProviderSettings, Transport
from llm_sidecar.providers.built_in import BUILT_IN

ENTRY_POINT_GROUP = "llm_sidecar.providers"


class UnknownProviderType(LookupError):
    """No class is registered for the type; the message lists those that are."""


class UnusableProviderType(UnknownProviderType):
    """The type's class is there, but it cannot be loaded, or cannot make a provider."""


class LLMProviderFactory:
    """Makes providers. A class is looked up, and imported, when it is first needed."""

    _registered: ClassVar[dict[str, type[Provider]]] = {}

    @classmethod
    def register(cls, provider_class: type[Provider]) -> type[Provider]:
        """Make `provider_class` known under its `type`. Usable as a decorator; the last registration counts."""
        cls._registered[provider_class.type] = provider_class
        return provider_class

    @classmethod
    def types(cls) -> list[str]:
        """All types that `create` understands, sorted."""
        return sorted({*cls._registered, *BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})

    @classmethod
    def provider_class(cls, provider_type: str) -> type[Provider]:
        """The class for a type. Raises `UnknownProviderType`, `UnusableProviderType`."""
        if provider_type not in cls._registered and provider_type in BUILT_IN:
            cls._registered[provider_type] = pkgutil.resolve_name(BUILT_IN[provider_type])
        if provider_type not in cls._registered:
            points = entry_points(group=ENTRY_POINT_GROUP, name=provider_type)
            if not points:
                known = ", ".join(cls.types())
                raise UnknownProviderType(f"provider type {provider_type!r} is not known here; known are: {known}")
            try:
                cls._registered[provider_type] = next(iter(points)).load()
            except Exception as error:
                raise UnusableProviderType(
                    f"the package that adds provider type {provider_type!r} cannot be loaded "
                    f"({type(error).__name__}: {error}): see that it is installed whole, in a version that fits"
                ) from error
        return cls._registered[provider_type]

    @classmethod
    def create(cls, provider_type: str, settings: ProviderSettings, transport: Transport) -> Provider:
        """A provider of that type. Raises `UnknownProviderType`, `UnusableProviderType`."""
        provider_class = cls.provider_class(provider_type)
        try:
            return provider_class(settings, transport)
        except Exception as error:  # noqa: BLE001 - it is told as what it is
            # Its words may hold the key that it was given: only the kind and the place are told.
            raise UnusableProviderType(
                f"the class of provider type {provider_type!r} failed to start with {type(error).__name__} at "
                f"{_raised_at(error)}: a defect of the package that adds it"
            ) from None


def _raised_at(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
