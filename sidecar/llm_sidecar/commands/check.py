"""`llm-sidecar check`: validates manifests without a cluster, in the cluster's own words, with file and line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_sidecar.manifest_files import Severity, Unreadable
from llm_sidecar.manifests import Manifests, load

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

OK: Final = 0
PROBLEMS: Final = 1
UNUSABLE: Final = 2


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "check",
        help="validate manifests without a cluster",
        description="Validate LLMProvider, TeamQuota and Secret manifests without a cluster. "
        "Ends with 0 where nothing is wrong, 1 where something is, 2 where a file cannot be read.",
    )
    parser.add_argument(
        "-f",
        "--filename",
        dest="paths",
        metavar="FILE_OR_DIR",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="YAML or JSON files, or folders of them; may be repeated",
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="text for people, json for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, *, known_types: Collection[str] | None = None) -> int:
    """Check, print, and return the exit status. `known_types`: provider types; by default those registered."""
    try:
        manifests = load(arguments.paths, known_types=_registered_types() if known_types is None else known_types)
    except Unreadable as unreadable:
        sys.stderr.write(f"{unreadable}\n")
        return UNUSABLE
    if arguments.output == "json":
        sys.stdout.write(_as_json(manifests) + "\n")
    else:
        for problem in manifests.problems:
            sys.stderr.write(f"{problem}\n")
        sys.stderr.write(f"{_summary(manifests)}\n")
    return PROBLEMS if manifests.errors else OK


def _registered_types() -> Collection[str]:
    # Looking for installed packages takes time that the other commands need not spend.
    from llm_sidecar.providers.factory import LLMProviderFactory  # noqa: PLC0415

    return LLMProviderFactory.types()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _summary(manifests: Manifests) -> str:
    resources = ", ".join(
        (
            _counted(len(manifests.providers), "LLMProvider"),
            _counted(len(manifests.team_quotas), "TeamQuota"),
            _counted(len(manifests.secrets), "Secret"),
        )
    )
    warnings = sum(problem.severity is Severity.WARNING for problem in manifests.problems)
    verdict = ", ".join(
        [_counted(len(manifests.errors), "problem")] + ([_counted(warnings, "warning")] if warnings else [])
    )
    return f"{resources}: {verdict}"


def _as_json(manifests: Manifests) -> str:
    return json.dumps(
        {
            "ok": not manifests.errors,
            "problems": [asdict(problem) for problem in manifests.problems],
            "providers": [provider.value.identity for provider in manifests.providers],
            "teamQuotas": [quota.value.identity for quota in manifests.team_quotas],
            "secrets": list(manifests.secrets),
        },
        indent=2,
    )
