"""What the chart tells the webhook, by environment variables of the same prefix as the controller's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from llm_operator.inject import InjectionSettings
from llm_operator.inject.options import LOG_LEVELS
from llm_operator.inject.quantity import amount
from llm_operator.settings import VARIABLE_PREFIX, InvalidSettings

SIDECAR_PREFIX: Final = f"{VARIABLE_PREFIX}SIDECAR_"
"""Before the name, in capitals, of a field of `InjectionSettings`."""

_QUANTITIES: Final = ("cpu_request", "cpu_limit", "memory_request", "memory_limit", "guaranteed_cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """Settings of the webhook. Each stands in the variable `LLM_OPERATOR_` and its name in capitals."""

    injection: InjectionSettings
    """Each field in `LLM_OPERATOR_SIDECAR_` and its name; `require_quota` in `LLM_OPERATOR_REQUIRE_QUOTA`, which the
    controller reads as well."""
    certificate_directory: Path = Path("/etc/llm-operator/certificate")
    """Where `tls.crt` and `tls.key` are mounted; they may appear late."""
    host: str = "0.0.0.0"  # noqa: S104 - the API server comes from outside the pod
    port: int = 9443
    admin_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet as well
    admin_port: int = 9798
    """Serves `/metrics`, `/healthz` and `/readyz`."""
    drain_seconds: int = 5
    """How long it goes on serving after it was told to stop: until then the API server may still call this pod."""
    log_level: str = "info"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables. Raises `InvalidSettings`, whose message names one and never shows its value."""
        source = _Variables(environment)
        values: dict[str, Any] = {"injection": _injection(source)}
        for name in ("port", "admin_port"):
            values[name] = source.number(VARIABLE_PREFIX + name.upper(), most=65535)
        values["drain_seconds"] = source.number(f"{VARIABLE_PREFIX}DRAIN_SECONDS", most=300)
        values["log_level"] = source.matching(f"{VARIABLE_PREFIX}LOG_LEVEL", "|".join(LOG_LEVELS))
        for name in ("host", "admin_host"):
            values[name] = source.text(VARIABLE_PREFIX + name.upper())
        directory = source.text(f"{VARIABLE_PREFIX}CERTIFICATE_DIRECTORY")
        values["certificate_directory"] = Path(directory) if directory else None
        return cls(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True)
class _Variables:
    environment: Mapping[str, str] = field(repr=False)

    def text(self, name: str) -> str | None:
        return self.environment.get(name, "").strip() or None

    def matching(self, name: str, pattern: str) -> str | None:
        text = self.text(name)
        if text is not None and not re.fullmatch(pattern, text):
            raise InvalidSettings(f"{name} cannot be used. Fix: write {pattern.replace('|', ' or ')}")
        return text

    def number(self, name: str, *, most: int) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) > most:
            raise InvalidSettings(f"{name} is not a whole number up to {most}. Fix: correct it")
        return int(text)

    def quantity(self, name: str) -> str | None:
        text = self.text(name)
        if text is not None and amount(text) is None:
            raise InvalidSettings(f"{name} is not a Kubernetes quantity. Fix: write one like 100m or 256Mi")
        return text


def _injection(source: _Variables) -> InjectionSettings:
    image = source.text(f"{SIDECAR_PREFIX}IMAGE")
    if image is None:
        raise InvalidSettings(f"{SIDECAR_PREFIX}IMAGE is not set. Fix: set it, as the chart does")
    required = source.matching(f"{VARIABLE_PREFIX}REQUIRE_QUOTA", "true|false")
    values: dict[str, Any] = {
        "image": image,
        "version": source.text(f"{SIDECAR_PREFIX}VERSION") or version("llm-sidecar"),
        "image_pull_policy": source.matching(f"{SIDECAR_PREFIX}IMAGE_PULL_POLICY", "Always|IfNotPresent|Never"),
        "run_as_user": source.number(f"{SIDECAR_PREFIX}RUN_AS_USER", most=2**31 - 1),
        "log_level": source.matching(f"{SIDECAR_PREFIX}LOG_LEVEL", "|".join(LOG_LEVELS)),
        "require_quota": None if required is None else required == "true",
        **{name: source.quantity(SIDECAR_PREFIX + name.upper()) for name in _QUANTITIES},
    }
    known = {one.name for one in fields(InjectionSettings)}
    return InjectionSettings(**{name: value for name, value in values.items() if value is not None and name in known})
