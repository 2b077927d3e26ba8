"""The chart, rendered by a real Helm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from tests.cluster import binaries
from tests.cluster.commands import CommandFailed, run

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts" / "llm-sidecar"
RELEASE: Final = "llm-sidecar"
NAMESPACE: Final = "llm-system"

Object: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart under `charts/`, and the Helm that renders it."""

    helm: Path

    def lint(self, *arguments: str | Path) -> str:
        """What `helm lint` says."""
        return run(self.helm, "lint", "--strict", CHART, f"--namespace={NAMESPACE}", *arguments)

    def text(
        self,
        *arguments: str | Path,
        set: Iterable[str] = (),  # noqa: A002 - as the option is called
        values: Mapping[str, Any] | None = None,
        namespace: str = NAMESPACE,
    ) -> str:
        """The manifests as Helm writes them."""
        options = [f"--set={one}" for one in set]
        # YAML, because it contains JSON.
        given = ("--values=-",) if values is not None else ()
        return run(
            *(self.helm, "template", RELEASE, CHART, f"--namespace={namespace}", *options, *given, *arguments),
            stdin=json.dumps(values) if values is not None else None,
        )

    def render(
        self,
        *arguments: str | Path,
        set: Iterable[str] = (),  # noqa: A002
        values: Mapping[str, Any] | None = None,
        namespace: str = NAMESPACE,
    ) -> list[Object]:
        """The objects, hooks included."""
        return list(_objects(self.text(*arguments, set=set, values=values, namespace=namespace)))

    def refusal(self, *options: str, values: Mapping[str, Any] | None = None, namespace: str = NAMESPACE) -> str:
        """What Helm says about values that it should refuse."""
        try:
            self.text(set=options, values=values, namespace=namespace)
        except CommandFailed as failure:
            return failure.output
        raise AssertionError("Helm rendered what it should refuse")


def _objects(text: str) -> Iterable[Object]:
    # With libyaml where it is there: two thousand lines take the other loader a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return (one for one in yaml.load_all(text, Loader=loader) if one)


def helm_program() -> Path:
    """The machine's Helm, or one that is built for the tests and kept."""
    installed = shutil.which("helm")
    return Path(installed) if installed else binaries.program(binaries.HELM, "helm")


def only(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind, or of a kind and name."""
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name or ''}"
    return found[0]
