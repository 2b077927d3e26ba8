"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_operator.settings import InvalidSettings, Settings


def test_the_namespace_alone_is_enough() -> None:
    settings = Settings.from_environment({"LLM_OPERATOR_NAMESPACE": "llm-system"})

    assert settings == Settings(namespace="llm-system")
    assert settings.provider_namespaces == ("llm-system",)


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:password@redis:6379\n")
    settings = Settings.from_environment(
        {
            "LLM_OPERATOR_NAMESPACE": "llm-system",
            "LLM_OPERATOR_PROVIDER_NAMESPACES": "one, two,one",
            "LLM_OPERATOR_REDIS_URL_FILE": str(tmp_path / "url"),
            "LLM_OPERATOR_REDIS_CA_BUNDLE": "-----BEGIN CERTIFICATE-----",
            "LLM_OPERATOR_ALL_SECRETS": "true",
            "LLM_OPERATOR_REQUIRE_QUOTA": "false",
            "LLM_OPERATOR_LOG_LEVEL": "DEBUG",
        }
    )

    assert settings.provider_namespaces == ("one", "two")
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:password@redis:6379"
    assert "password" not in repr(settings)
    assert settings.redis_ca_bundle == "-----BEGIN CERTIFICATE-----"
    assert (settings.all_secrets, settings.require_quota, settings.log_level) == (True, False, "debug")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUIRE_QUOTA", "secret-looking"),
        ("LOG_LEVEL", "secret-looking"),
        ("ADMIN_PORT", "secret-looking"),
        ("ADMIN_PORT", "70001"),
        ("RESYNC_SECONDS", "-7"),
        ("REDIS_URL_FILE", "secret-looking"),
        ("REDIS_CA_BUNDLE_FILE", "secret-looking"),
        ("REDIS_URL", "secret-looking"),
        ("REDIS_URL", "redis+cluster://:secret-looking@redis/7"),
        ("WEBHOOK_SECRET", "secret-looking"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment({"LLM_OPERATOR_NAMESPACE": "n", f"LLM_OPERATOR_{name}": value})

    assert f"LLM_OPERATOR_{name}" in str(caught.value)
    assert "Fix: " in str(caught.value)
    assert value not in str(caught.value)
    assert "secret-looking" not in str(caught.value)
