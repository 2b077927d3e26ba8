"""What annotations may say. How the answers read is in the golden pairs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from llm_operator.inject.options import EnvironmentPolicy, Options, key_warnings
from llm_operator.inject.quantity import amount
from llm_operator.inject.resources import sidecar_resources
from llm_operator.inject.settings import InjectionSettings
from llm_sidecar.contract.names import PodAnnotation

SETTINGS = InjectionSettings(image="any", version="1")


@pytest.mark.parametrize(
    ("annotation", "text", "field", "value"),
    [
        (PodAnnotation.TEAM, " checkout ", "team", "checkout"),
        (PodAnnotation.TEAM, "platform/search", "team", "platform/search"),
        (PodAnnotation.CONTAINERS, "web, worker,web", "containers", ("web", "worker")),
        (PodAnnotation.PORT, "1024", "port", 1024),
        (PodAnnotation.ADMIN_PORT, "65535", "admin_port", 65535),
        (PodAnnotation.CPU_LIMIT, "1.5", "cpu_limit", "1.5"),
        (PodAnnotation.MEMORY_LIMIT, "1e9", "memory_limit", "1e9"),
        (PodAnnotation.LOG_LEVEL, "error", "log_level", "error"),
        (PodAnnotation.ENV, "Override", "env", EnvironmentPolicy.OVERRIDE),
    ],
)
def test_an_annotation_becomes_its_option(annotation: PodAnnotation, text: str, field: str, value: Any) -> None:
    options, problems = Options.read({annotation: text})

    assert problems == ()
    assert getattr(options, field) == value


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (PodAnnotation.TEAM, ""),
        (PodAnnotation.TEAM, "a/b/c"),
        (PodAnnotation.TEAM, "/search"),
        (PodAnnotation.TEAM, "dotted.name"),
        (PodAnnotation.TEAM, "x" * 64),
        (PodAnnotation.CONTAINERS, ""),
        (PodAnnotation.PORT, "1023"),
        (PodAnnotation.PORT, "65536"),
        (PodAnnotation.PORT, "97_97"),
        (PodAnnotation.PORT, "٩٧٩٧"),
        (PodAnnotation.CPU_REQUEST, "0"),
        (PodAnnotation.CPU_REQUEST, "-1"),
        (PodAnnotation.CPU_REQUEST, "1 core"),
        (PodAnnotation.MEMORY_REQUEST, "31Mi"),
        (PodAnnotation.MEMORY_REQUEST, "64mi"),
        (PodAnnotation.MEMORY_REQUEST, "9" * 10_000),
        (PodAnnotation.LOG_LEVEL, "INFO"),
        (PodAnnotation.ENV, "override"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_cannot_be_used_is_one_short_sentence_about_its_annotation(
    annotation: PodAnnotation, text: str
) -> None:
    options, problems = Options.read({annotation: text})

    assert options == Options()
    assert len(problems) == 1
    assert problems[0].startswith(f"{annotation}: ")
    assert len(problems[0]) < 200


def test_an_unprintable_value_is_told_in_printable_characters() -> None:
    _, problems = Options.read({PodAnnotation.LOG_LEVEL: "in\nfo\x1b[0m"})

    assert problems[0].isprintable()


def test_keys_that_are_not_ours_are_nobodys_business() -> None:
    assert (
        key_warnings({PodAnnotation.INJECT: "true", "example.com/injct": "x", "llm-sidecar.io.example/port": "y"}) == ()
    )


def test_warnings_about_many_keys_end() -> None:
    assert len(key_warnings({f"llm-sidecar.io/unknown-{number}": "" for number in range(100)})) < 10


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("1.", "1"),
        ("2Ki", "2048"),
        ("1k", "1000"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1e18"),
        ("1E-2", "0.01"),
        ("3Ei", str(3 * 2**60)),
        (2, "2"),
    ],
    ids=str,
)
def test_a_quantity_is_the_number_that_kubernetes_takes_it_for(text: Any, number: str) -> None:
    assert amount(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1KI", "1.2.3", "0x10", "NaN", "1e999", None, {}], ids=str)
def test_what_is_no_quantity_has_no_amount(text: Any) -> None:
    assert amount(text) is None


@pytest.mark.parametrize(
    ("asked", "requests", "limits"),
    [
        ({}, {"cpu": "50m", "memory": "96Mi"}, {"memory": "256Mi"}),
        ({"cpu_limit": "20m"}, {"cpu": "20m", "memory": "96Mi"}, {"cpu": "20m", "memory": "256Mi"}),
        ({"memory_limit": "64Mi"}, {"cpu": "50m", "memory": "64Mi"}, {"memory": "64Mi"}),
        ({"memory_request": "1Gi"}, {"cpu": "50m", "memory": "1Gi"}, {"memory": "1Gi"}),
        (
            {"memory_request": "1Gi", "memory_limit": "2Gi"},
            {"cpu": "50m", "memory": "1Gi"},
            {"memory": "2Gi"},
        ),
    ],
    ids=str,
)
def test_a_default_gives_way_to_what_was_asked_for(
    asked: dict[str, str], requests: dict[str, str], limits: dict[str, str]
) -> None:
    pod = {"spec": {"containers": [{"name": "app"}]}}

    resources = sidecar_resources(pod, options=Options(**asked), settings=SETTINGS)  # type: ignore[arg-type]

    assert resources == {"requests": requests, "limits": limits}
