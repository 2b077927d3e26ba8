from __future__ import annotations

from pathlib import Path

import pytest

from llm_operator.settings import InvalidSettings
from llm_operator.webhook_settings import WebhookSettings

_IMAGE = {"LLM_OPERATOR_SIDECAR_IMAGE": "registry.example.com/llm-sidecar:1"}


def test_the_image_is_enough() -> None:
    settings = WebhookSettings.from_environment(_IMAGE)
    assert settings.injection.image == "registry.example.com/llm-sidecar:1"
    assert settings.injection.require_quota
    assert (settings.port, settings.admin_port) == (9443, 9798)


def test_everything_can_be_said_by_variables() -> None:
    settings = WebhookSettings.from_environment(
        {
            **_IMAGE,
            "LLM_OPERATOR_SIDECAR_VERSION": "9",
            "LLM_OPERATOR_SIDECAR_IMAGE_PULL_POLICY": "Always",
            "LLM_OPERATOR_SIDECAR_RUN_AS_USER": "1001",
            "LLM_OPERATOR_SIDECAR_CPU_REQUEST": "100m",
            "LLM_OPERATOR_SIDECAR_CPU_LIMIT": "1",
            "LLM_OPERATOR_SIDECAR_MEMORY_REQUEST": "128Mi",
            "LLM_OPERATOR_SIDECAR_MEMORY_LIMIT": "1Gi",
            "LLM_OPERATOR_SIDECAR_GUARANTEED_CPU": "250m",
            "LLM_OPERATOR_SIDECAR_LOG_LEVEL": "debug",
            "LLM_OPERATOR_REQUIRE_QUOTA": "false",
            "LLM_OPERATOR_CERTIFICATE_DIRECTORY": "/certificate",
            "LLM_OPERATOR_HOST": "::",
            "LLM_OPERATOR_PORT": "8443",
            "LLM_OPERATOR_ADMIN_HOST": "127.0.0.1",
            "LLM_OPERATOR_ADMIN_PORT": "8080",
            "LLM_OPERATOR_DRAIN_SECONDS": "0",
            "LLM_OPERATOR_LOG_LEVEL": "warning",
        }
    )
    injection = settings.injection
    assert (injection.version, injection.image_pull_policy, injection.run_as_user) == ("9", "Always", 1001)
    assert (injection.cpu_request, injection.cpu_limit, injection.guaranteed_cpu) == ("100m", "1", "250m")
    assert (injection.memory_request, injection.memory_limit) == ("128Mi", "1Gi")
    assert (injection.log_level, injection.require_quota) == ("debug", False)
    assert settings.certificate_directory == Path("/certificate")
    assert (settings.host, settings.port, settings.admin_host, settings.admin_port) == ("::", 8443, "127.0.0.1", 8080)
    assert (settings.drain_seconds, settings.log_level) == (0, "warning")


def test_without_an_image_it_does_not_start() -> None:
    with pytest.raises(InvalidSettings, match="LLM_OPERATOR_SIDECAR_IMAGE is not set"):
        WebhookSettings.from_environment({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "70000"),
        ("ADMIN_PORT", "x"),
        ("DRAIN_SECONDS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("REQUIRE_QUOTA", "yes"),
        ("SIDECAR_RUN_AS_USER", "root"),
        ("SIDECAR_MEMORY_LIMIT", "256 megabytes"),
        ("SIDECAR_IMAGE_PULL_POLICY", "Sometimes"),
        ("SIDECAR_LOG_LEVEL", "loud"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_and_not_shown(variable: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"LLM_OPERATOR_{variable} ") as caught:
        WebhookSettings.from_environment({**_IMAGE, f"LLM_OPERATOR_{variable}": value})
    assert value not in str(caught.value).split(". Fix")[0].removeprefix(f"LLM_OPERATOR_{variable} is ")
