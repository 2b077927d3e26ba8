"""What the chart tells the controller, by environment variables. Everything has a name here and a default where one
is safe; what cannot be used stops the program before it touches the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from llm_sidecar.contract.redis_url import InvalidStoreURL, parse_redis_url

VARIABLE_PREFIX: Final = "LLM_OPERATOR_"

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class InvalidSettings(ValueError):
    """An environment variable cannot be used. The message names it, and never shows its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the controller. Each stands in the variable `LLM_OPERATOR_` and its name in capitals."""

    namespace: str
    """Where the operator itself lives (`LLM_OPERATOR_NAMESPACE`); it keeps the list of what it published there."""
    provider_namespaces: tuple[str, ...] = ()
    """Namespaces whose providers are shared, comma separated. Default: the operator's own."""
    all_secrets: bool = False
    """Read labelled Secrets of every namespace that has an LLMProvider, also before any pod claims a team there."""
    require_quota: bool = True
    """A pod without a TeamQuota gets no provider; as the webhook's setting of this name."""
    redis_url: SecretStr | None = None
    """What the proxies use. `LLM_OPERATOR_REDIS_URL_FILE` names a file that holds it instead."""
    redis_ca_bundle: str | None = None
    """PEM of the authorities that Redis's certificate comes from, in the place of the system's; proxies get it with the
    URL. `LLM_OPERATOR_REDIS_CA_BUNDLE_FILE` names a file that holds it instead."""
    log_level: str = "info"
    admin_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from outside the pod
    admin_port: int = 9798
    """Serves `/metrics`, `/healthz` and `/readyz`."""
    key_check_seconds: int = 600
    """How long a provider's word that it takes a key counts."""
    resync_seconds: int = 300
    """How often everything is listed again, against watches that died silently."""
    unused_seconds: int = 3600
    """How long a published Secret stays after the last pod that used it."""
    pod_patches_per_second: int = 50
    """How fast the pods of a changed team are told."""
    webhook_secret: str | None = None
    """Secret of the webhook's certificates, which the controller makes and renews. None: somebody else does."""
    webhook_configuration: str | None = None
    """Name of the MutatingWebhookConfiguration that shall trust them."""
    webhook_service_names: tuple[str, ...] = ()
    """DNS names of the webhook's Service, comma separated."""

    def __post_init__(self) -> None:
        webhook = (self.webhook_secret, self.webhook_configuration, self.webhook_service_names)
        if any(webhook) and not all(webhook):
            raise InvalidSettings(
                f"of {VARIABLE_PREFIX}WEBHOOK_SECRET, {VARIABLE_PREFIX}WEBHOOK_CONFIGURATION and "
                f"{VARIABLE_PREFIX}WEBHOOK_SERVICE_NAMES only some are set. Fix: set all of them, or none"
            )
        if not self.provider_namespaces:
            object.__setattr__(self, "provider_namespaces", (self.namespace,))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables. Raises `InvalidSettings`."""
        source = _Source(environment)
        default = cls(namespace=source.required("NAMESPACE"))
        return cls(
            namespace=default.namespace,
            provider_namespaces=source.names("PROVIDER_NAMESPACES"),
            all_secrets=source.flag("ALL_SECRETS", default=default.all_secrets),
            require_quota=source.flag("REQUIRE_QUOTA", default=default.require_quota),
            redis_url=_usable(source.secret("REDIS_URL")),
            redis_ca_bundle=source.content("REDIS_CA_BUNDLE"),
            log_level=source.choice("LOG_LEVEL", _LOG_LEVELS, default=default.log_level),
            admin_host=source.text("ADMIN_HOST") or default.admin_host,
            admin_port=source.number("ADMIN_PORT", default=default.admin_port, most=65535),
            key_check_seconds=source.number("KEY_CHECK_SECONDS", default=default.key_check_seconds),
            resync_seconds=source.number("RESYNC_SECONDS", default=default.resync_seconds),
            unused_seconds=source.number("UNUSED_SECONDS", default=default.unused_seconds),
            pod_patches_per_second=source.number("POD_PATCHES_PER_SECOND", default=default.pod_patches_per_second),
            webhook_secret=source.text("WEBHOOK_SECRET"),
            webhook_configuration=source.text("WEBHOOK_CONFIGURATION"),
            webhook_service_names=source.names("WEBHOOK_SERVICE_NAMES"),
        )


def _usable(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        try:
            parse_redis_url(url.get_secret_value())
        except InvalidStoreURL as error:
            raise InvalidSettings(f"{VARIABLE_PREFIX}REDIS_URL cannot be used: {error}. Fix: correct it") from None
    return url


def redis_url(environment: Mapping[str, str]) -> SecretStr | None:
    """The Redis URL alone, for commands that need nothing else. Raises `InvalidSettings`."""
    return _Source(environment).secret("REDIS_URL")


def redis_ca_bundle(environment: Mapping[str, str]) -> str | None:
    """The authorities of Redis's certificate alone, likewise. Raises `InvalidSettings`."""
    return _Source(environment).content("REDIS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class _Source:
    environment: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.environment.get(VARIABLE_PREFIX + name, "").strip() or None

    def required(self, name: str) -> str:
        text = self.text(name)
        if text is None:
            raise InvalidSettings(f"{VARIABLE_PREFIX}{name} is not set. Fix: set it, as the chart does")
        return text

    def names(self, name: str) -> tuple[str, ...]:
        parts = (part.strip() for part in (self.text(name) or "").split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    def flag(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text is None:
            return default
        if text.lower() not in {"true", "false"}:
            raise InvalidSettings(f"{VARIABLE_PREFIX}{name} is neither true nor false. Fix: write one of them")
        return text.lower() == "true"

    def choice(self, name: str, choices: tuple[str, ...], *, default: str) -> str:
        text = (self.text(name) or default).lower()
        if text not in choices:
            raise InvalidSettings(f"{VARIABLE_PREFIX}{name} is not known. Fix: write one of {', '.join(choices)}")
        return text

    def number(self, name: str, *, default: int, most: int = 7 * 24 * 3600) -> int:
        text = self.text(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise InvalidSettings(f"{VARIABLE_PREFIX}{name} is not a whole number from 1 to {most}. Fix: correct it")
        return int(text)

    def secret(self, name: str) -> SecretStr | None:
        text = self.content(name)
        return SecretStr(text) if text else None

    def content(self, name: str) -> str | None:
        """The variable's own text, or that of the file which its sibling names."""
        text, path = self.text(name), self.text(f"{name}_FILE")
        if text is not None and path is not None:
            raise InvalidSettings(f"{VARIABLE_PREFIX}{name} and {VARIABLE_PREFIX}{name}_FILE are set. Fix: keep one")
        if path is not None:
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                variable = f"{VARIABLE_PREFIX}{name}_FILE"
                raise InvalidSettings(f"the file that {variable} names cannot be read. Fix: mount it there") from None
        return text or None
