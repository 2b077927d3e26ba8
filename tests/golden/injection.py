"""What the webhook makes of the pod in a case's folder, as the files that stand beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from llm_operator.inject import Inject, InjectionSettings, Refuse, Skip, decide, inject, wire

CASES: Final = Path(__file__).parent / "inject"
EXPECTATIONS: Final = ("patch.json", "refused.txt", "skipped.txt", "warnings.txt")
TOKEN: Final = "golden-token-that-is-of-no-use-to-anybody"

SETTINGS: Final[Mapping[str, Any]] = {"image": "registry.example.com/llm-sidecar:1.2.3", "version": "1.2.3"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The namespaces and teams of `cluster.yaml`."""

    labels: Mapping[str, Mapping[str, str]]
    quotas: Mapping[tuple[str, str], Mapping[str, Any]]

    def team_quota(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.quotas.get((namespace, name))

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        return self.labels.get(namespace, {})


@cache
def load_cluster() -> Cluster:
    documents = list(yaml.safe_load_all((CASES / "cluster.yaml").read_text(encoding="utf-8")))
    return Cluster(
        labels={one["metadata"]["name"]: one["metadata"]["labels"] for one in documents if one["kind"] == "Namespace"},
        quotas={
            (one["metadata"]["namespace"], one["metadata"]["name"]): one
            for one in documents
            if one["kind"] == "TeamQuota"
        },
    )


def cases() -> list[Path]:
    return sorted(path.parent for path in CASES.glob("*/pod.yaml"))


def read_pod(case: Path) -> dict[str, Any]:
    pod: dict[str, Any] = yaml.safe_load((case / "pod.yaml").read_text(encoding="utf-8"))
    return pod


def decision_about(pod: Mapping[str, Any], case: Path) -> Skip | Refuse | Inject:
    overrides = case / "settings.yaml"
    settings = yaml.safe_load(overrides.read_text(encoding="utf-8")) if overrides.exists() else {}
    return decide(
        pod,
        namespace=pod["metadata"].get("namespace", "payments"),
        teams=load_cluster(),
        settings=InjectionSettings(**SETTINGS, **settings),
    )


def outcome(case: Path) -> dict[str, str]:
    """The content of each file that belongs beside the case's pod."""
    pod = read_pod(case)
    decision = decision_about(pod, case)
    files = {"warnings.txt": "".join(f"{warning}\n" for warning in decision.warnings)}
    match decision:
        case Skip():
            files["skipped.txt"] = f"{decision.reason}\n"
        case Refuse():
            files["refused.txt"] = f"{decision.message}\n"
        case Inject():
            files["patch.json"] = readable(wire(inject(pod, decision, token=TOKEN)))
    return {name: content for name, content in files.items() if content}


def readable(patch: bytes) -> str:
    """A patch for people: the same keys in the same order, one to a line."""
    return json.dumps(json.loads(patch), indent=2, ensure_ascii=False) + "\n"


def compact(text: str) -> bytes:
    """The bytes on the wire that a readable patch stands for."""
    return json.dumps(json.loads(text), separators=(",", ":")).encode()
