"""Why a pod is left alone or refused: one closed table, for messages, the metric's label and the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_MAX_DETAILS: Final = 8
"""An event holds 1024 characters."""


class SkipReason(StrEnum):
    """The pod is admitted as it is."""

    NOT_OPTED_IN = "NotOptedIn"
    VETOED = "Vetoed"
    MIRROR_POD = "MirrorPod"
    ALREADY_INJECTED = "AlreadyInjected"


class RefuseReason(StrEnum):
    """The pod asked for the proxy and cannot have it: it is not admitted."""

    MALFORMED_POD = "MalformedPod"
    INVALID_OPTION = "InvalidOption"
    WINDOWS = "Windows"
    HOST_NETWORK = "HostNetwork"
    SHARED_PROCESS_NAMESPACE = "SharedProcessNamespace"
    NAME_TAKEN = "NameTaken"
    CONFIG_USED = "ConfigUsed"
    NOT_OURS = "NotOurs"
    UNKNOWN_CONTAINER = "UnknownContainer"
    PORT_CLASH = "PortClash"
    NO_TEAM = "NoTeam"
    UNKNOWN_TEAM = "UnknownTeam"
    TEAM_NOT_ALLOWED = "TeamNotAllowed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A reason, for people."""

    sentence: str
    fix: str


SKIPPED: Final[Mapping[SkipReason, str]] = {
    SkipReason.NOT_OPTED_IN: 'The pod does not ask for the proxy by llm-sidecar.io/inject: "true".',
    SkipReason.VETOED: 'The pod says llm-sidecar.io/inject: "false".',
    SkipReason.MIRROR_POD: "The pod is a static pod's mirror: the kubelet runs it as its own file says.",
    SkipReason.ALREADY_INJECTED: "The pod has the proxy as this webhook makes it, and its team may still be claimed.",
}

REFUSED: Final[Mapping[RefuseReason, Explanation]] = {
    RefuseReason.MALFORMED_POD: Explanation(
        "A field of the pod is not of the type that Kubernetes gives it.", "Correct the field."
    ),
    RefuseReason.INVALID_OPTION: Explanation(
        "An annotation of ours has a value that it cannot have.", "Correct the annotation on the pod template."
    ),
    RefuseReason.WINDOWS: Explanation(
        "The pod runs on Windows, and the proxy does not.", "Remove llm-sidecar.io/inject from the pod template."
    ),
    RefuseReason.HOST_NETWORK: Explanation(
        "The pod uses its node's network, where every pod of the node could reach the proxy.", "Remove hostNetwork."
    ),
    RefuseReason.SHARED_PROCESS_NAMESPACE: Explanation(
        "The pod shares its processes between containers or with the node: the app could read the proxy's files.",
        "Remove shareProcessNamespace and hostPID.",
    ),
    RefuseReason.NAME_TAKEN: Explanation(
        "The pod itself uses a name that belongs to the proxy.", "Rename it, or remove it."
    ),
    RefuseReason.CONFIG_USED: Explanation(
        "The pod itself uses the proxy's volumes or a Secret of the proxy, which holds provider keys.",
        "Remove the use: the app needs none of them.",
    ),
    RefuseReason.NOT_OURS: Explanation(
        "The pod says that it has the proxy already, but it is not as this webhook makes it.",
        "Submit the pod without the parts that the webhook adds; where another webhook changed them, exempt "
        "the container llm-sidecar there.",
    ),
    RefuseReason.UNKNOWN_CONTAINER: Explanation(
        "llm-sidecar.io/containers names a container that the pod does not have.", "Correct the list."
    ),
    RefuseReason.PORT_CLASH: Explanation(
        "A container of the pod listens on a port of the proxy.",
        "Give the proxy others by llm-sidecar.io/port and llm-sidecar.io/admin-port.",
    ),
    RefuseReason.NO_TEAM: Explanation(
        "The pod names no team, and its namespace has no TeamQuota called default.",
        "Name one by llm-sidecar.io/team, or create that TeamQuota.",
    ),
    RefuseReason.UNKNOWN_TEAM: Explanation(
        "The team that the pod names has no TeamQuota.",
        "Correct llm-sidecar.io/team (NAME, or NAMESPACE/NAME of another namespace), or create the TeamQuota.",
    ),
    RefuseReason.TEAM_NOT_ALLOWED: Explanation(
        "The TeamQuota does not let pods of this namespace claim its team.",
        "Ask its owner to admit the namespace in spec.allowedNamespaces, or name another team.",
    ),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason to refuse, and what in this pod it is about."""

    reason: RefuseReason
    detail: str = ""


def told(problems: Sequence[Problem]) -> str:
    """All problems, for people: each reason once, with everything that it is about."""
    sentences = []
    for reason in dict.fromkeys(problem.reason for problem in problems):
        details = [problem.detail for problem in problems if problem.reason is reason and problem.detail]
        more = [f"and {len(details) - _MAX_DETAILS} more"] if len(details) > _MAX_DETAILS else []
        about = f" [{'; '.join([*details[:_MAX_DETAILS], *more])}]" if details else ""
        sentences.append(f"{reason}: {REFUSED[reason].sentence}{about} Fix: {REFUSED[reason].fix}")
    return " ".join(sentences)
