"""Warnings about what makes pods: people see the warnings of what they apply, and never those of its pods.

Nothing here refuses: a TeamQuota may follow its Deployment in the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from llm_operator.inject import InjectionSettings, Refuse, TeamLookup, decide
from llm_operator.inject.pod import annotations_of
from llm_sidecar.contract.names import CONFIG_HASH_ANNOTATION, PodAnnotation

_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind keeps its pod template."""


def workload_warnings(
    workload: Any, *, kind: str, namespace: str, teams: TeamLookup, settings: InjectionSettings
) -> tuple[str, ...]:
    """What the owner of a workload should know about the pods that it will make."""
    path = _TEMPLATES.get(kind)
    if path is None or not isinstance(workload, dict) or (workload.get("metadata") or {}).get("ownerReferences"):
        # What a controller made has an owner whose own warnings said all this, to a person.
        return ()
    template = _template(workload, path)
    if template is None:
        return ()
    where = ".".join(path)
    decision = decide(template, namespace=namespace, teams=teams, settings=settings)
    refused = (f"pods of this {kind} would be {decision.message}",) if isinstance(decision, Refuse) else ()
    return (*_misplaced(workload, template, where), *decision.warnings, *refused)


def _template(workload: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    found: Any = workload
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _misplaced(workload: Mapping[str, Any], template: Mapping[str, Any], where: str) -> Iterator[str]:
    given = annotations_of(template)
    lost = [key for key in PodAnnotation if key in annotations_of(workload) and key not in given]
    if lost:
        yield f"move {', '.join(lost)} to {where}.metadata.annotations: here it has no effect on pods"
    if CONFIG_HASH_ANNOTATION in annotations_of(workload):
        yield f"annotation {CONFIG_HASH_ANNOTATION} is written by the controller: remove it"
