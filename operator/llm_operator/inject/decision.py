"""Whether a pod gets the proxy. Pure: what it must know of the cluster comes through `TeamLookup`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from llm_operator.inject.checks import OUR_VOLUMES, label_problems, problems_of
from llm_operator.inject.claims import may_claim
from llm_operator.inject.options import (
    OptIn,
    Options,
    invalid_opt_in,
    key_warnings,
    opt_in,
    parse_team,
)
from llm_operator.inject.outcome import Inject, Refuse, Skip, Team
from llm_operator.inject.patch import inject, warnings_for
from llm_operator.inject.pod import (
    Document,
    annotations_of,
    containers_of,
    labels_of,
    malformed_field,
    volumes_of,
)
from llm_operator.inject.reasons import Problem, RefuseReason, SkipReason
from llm_operator.inject.recognise import difference, made_token
from llm_operator.inject.settings import InjectionSettings
from llm_sidecar.contract.names import (
    DEFAULT_TEAM,
    INJECTED_LABEL,
    SIDECAR_CONTAINER,
    STATUS_ANNOTATION,
    PodAnnotation,
)

_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


class TeamLookup(Protocol):
    """What the decision asks about the cluster."""

    def team_quota(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The TeamQuota, as a raw resource, or None where there is none."""
        ...

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        """The labels of a namespace; none where it is unknown."""
        ...


def decide(pod: Document, *, namespace: str, teams: TeamLookup, settings: InjectionSettings) -> Skip | Refuse | Inject:
    """What to do with a pod that is about to be created in `namespace`."""
    annotations = annotations_of(pod) if isinstance(pod, dict) else {}
    warnings = (*key_warnings(annotations), *_label_warnings(pod, annotations))
    reason = _skip_reason(annotations)
    if reason is not None:
        return Skip(reason, warnings)
    field = malformed_field(pod)
    if field is not None:
        return Refuse((Problem(RefuseReason.MALFORMED_POD, field),), warnings)
    options, invalid = Options.read(annotations)
    if opt_in(annotations) is OptIn.INVALID:
        invalid = (invalid_opt_in(annotations), *invalid)
    problems = [*(Problem(RefuseReason.INVALID_OPTION, text) for text in invalid), *problems_of(pod, options)]
    team = None if invalid else _team(options, namespace=namespace, teams=teams, settings=settings)
    if isinstance(team, Problem):
        problems.append(team)
    if problems or not isinstance(team, Team):
        return Refuse(tuple(problems), warnings)
    return _recognised(pod, Inject(team=team, options=options, settings=settings, warnings=warnings))


def _skip_reason(annotations: Mapping[str, Any]) -> SkipReason | None:
    if _MIRROR_ANNOTATION in annotations:
        return SkipReason.MIRROR_POD
    match opt_in(annotations):
        case OptIn.ABSENT:
            return SkipReason.NOT_OPTED_IN
        case OptIn.NO:
            return SkipReason.VETOED
        case _:
            return None


def _label_warnings(pod: Document, annotations: Mapping[str, Any]) -> Iterator[str]:
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    if isinstance(labels, dict) and PodAnnotation.INJECT in labels and PodAnnotation.INJECT not in annotations:
        yield f"{PodAnnotation.INJECT} is a label here: it must be an annotation of the pod template"


def _team(options: Options, *, namespace: str, teams: TeamLookup, settings: InjectionSettings) -> Team | Problem:
    team = Team(*parse_team(options.team or DEFAULT_TEAM, namespace=namespace))
    quota = teams.team_quota(team.namespace, team.name)
    if quota is None:
        if options.team is not None:
            return Problem(RefuseReason.UNKNOWN_TEAM, str(team))
        return Problem(RefuseReason.NO_TEAM, f"namespace {namespace}") if settings.require_quota else team
    if not may_claim(quota, namespace=namespace, namespace_labels=teams.namespace_labels(namespace)):
        return Problem(RefuseReason.TEAM_NOT_ALLOWED, f"{team}, namespace {namespace}")
    return team


def _recognised(pod: Document, decision: Inject) -> Skip | Refuse | Inject:
    """The decision, given what the pod has of ours already."""
    ours = [one for _, _, one in containers_of(pod, "initContainers") if one["name"] == SIDECAR_CONTAINER]
    problems = [*_foreign_parts(pod, has_sidecar=bool(ours)), *label_problems(pod, decision)]
    token = None
    if len(ours) == 1:
        token = made_token(ours[0])
        field = "env" if token is None else difference(pod, ours[0], decision=decision, token=token)
        if field is not None:
            problems.append(_not_as_made(pod, field))
    if problems:
        return Refuse(tuple(problems), decision.warnings)
    decision = replace(decision, kept_token=token)
    decision = replace(decision, warnings=(*decision.warnings, *warnings_for(pod, decision)))
    if token is not None and not inject(pod, decision, token=token):
        return Skip(SkipReason.ALREADY_INJECTED, decision.warnings)
    return decision


def _foreign_parts(pod: Document, *, has_sidecar: bool) -> Iterator[Problem]:
    """Parts with our names that cannot be ours."""
    names = [(list_name, one["name"]) for list_name, _, one in containers_of(pod)]
    for list_name in ("containers", "ephemeralContainers"):
        if (list_name, SIDECAR_CONTAINER) in names:
            yield Problem(RefuseReason.NAME_TAKEN, f"spec.{list_name}, container {SIDECAR_CONTAINER}")
    if names.count(("initContainers", SIDECAR_CONTAINER)) > 1:
        yield Problem(RefuseReason.NAME_TAKEN, f"spec.initContainers, container {SIDECAR_CONTAINER}")
    if has_sidecar:
        return
    for volume in volumes_of(pod):
        if volume["name"] in OUR_VOLUMES:
            yield Problem(RefuseReason.NAME_TAKEN, f"volume {volume['name']}")
    claim = _claim(pod)
    if claim is not None:
        yield Problem(RefuseReason.NOT_OURS, f"{claim}, but no init container {SIDECAR_CONTAINER}")


def _not_as_made(pod: Document, field: str) -> Problem:
    if _claim(pod) is not None:
        return Problem(RefuseReason.NOT_OURS, f"init container {SIDECAR_CONTAINER}: {field}")
    return Problem(RefuseReason.NAME_TAKEN, f"spec.initContainers, container {SIDECAR_CONTAINER}")


def _claim(pod: Document) -> str | None:
    """What says that the pod has been here before."""
    if STATUS_ANNOTATION in annotations_of(pod):
        return f"annotation {STATUS_ANNOTATION}"
    return f"label {INJECTED_LABEL}" if INJECTED_LABEL in labels_of(pod) else None
