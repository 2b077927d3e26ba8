"""`docs/annotations.md` says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from llm_operator.inject import REFUSED, SKIPPED, InjectionSettings, RefuseReason, SkipReason
from llm_operator.inject.environment import sdk_environments
from llm_operator.inject.options import LOG_LEVELS, EnvironmentPolicy
from llm_sidecar.contract.names import ADMIN_PORT, PROXY_PORT, PodAnnotation

PAGE = (Path(__file__).parents[3] / "docs" / "annotations.md").read_text(encoding="utf-8")
DEFAULTS = {field.name: field.default for field in fields(InjectionSettings)}


def _rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]


def test_every_reason_to_refuse_is_explained_in_its_own_words() -> None:
    expected = [[f"`{reason}`", one.sentence, one.fix] for reason, one in REFUSED.items()]

    assert _rows("Why a pod was refused") == expected


def test_every_reason_to_skip_is_explained_in_its_own_words() -> None:
    assert _rows("Why a pod has no proxy") == [[f"`{reason}`", sentence] for reason, sentence in SKIPPED.items()]


def test_the_tables_of_reasons_are_closed() -> None:
    assert set(REFUSED) == set(RefuseReason)
    assert set(SKIPPED) == set(SkipReason)


def test_every_annotation_is_listed_with_its_default() -> None:
    rows = {row[0].strip("`"): row for row in _rows("What you may write")}
    told = {
        PodAnnotation.PORT: str(PROXY_PORT),
        PodAnnotation.ADMIN_PORT: str(ADMIN_PORT),
        PodAnnotation.CPU_REQUEST: DEFAULTS["cpu_request"],
        PodAnnotation.MEMORY_REQUEST: DEFAULTS["memory_request"],
        PodAnnotation.MEMORY_LIMIT: DEFAULTS["memory_limit"],
        PodAnnotation.LOG_LEVEL: DEFAULTS["log_level"],
        PodAnnotation.ENV: EnvironmentPolicy.IF_ABSENT,
    }

    assert list(rows) == list(PodAnnotation)
    for annotation, default in told.items():
        assert f"`{default}`" in rows[annotation][2]
    assert DEFAULTS["cpu_limit"] is None


def test_every_choice_is_named() -> None:
    rows = {row[0].strip("`"): row[1] for row in _rows("What you may write")}

    assert set(LOG_LEVELS) == set(re.findall("`([a-z]+)`", rows[PodAnnotation.LOG_LEVEL]))
    assert set(EnvironmentPolicy) == set(re.findall("`([A-Za-z]+)`", rows[PodAnnotation.ENV]))


def test_every_variable_is_named_with_its_sdk() -> None:
    lines = {line.split(" | ")[0].strip("| "): line for line in PAGE.splitlines() if line.startswith("| ")}

    for sdk in sdk_environments(port=1, token="any"):
        assert re.findall("`([A-Z_]+)`", lines[sdk.name]) == [*sdk.variables, *sdk.diversions]
