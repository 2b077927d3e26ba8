"""What the webhook can decide about a pod: leave it alone, refuse it, or inject the proxy."""

from __future__ import annotations

from dataclasses import dataclass

from llm_operator.inject.options import Options
from llm_operator.inject.reasons import Problem, RefuseReason, SkipReason, told
from llm_operator.inject.settings import InjectionSettings
from llm_sidecar.contract.names import config_secret


@dataclass(frozen=True, slots=True, order=True)
class Team:
    """A team's identity: namespace and name of its TeamQuota."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def secret(self) -> str:
        """Name of the Secret with its config document, in each namespace whose pods claim the team."""
        return config_secret(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Skip:
    """The pod is admitted as it is."""

    reason: SkipReason
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """The pod is not admitted."""

    problems: tuple[Problem, ...]
    """At least one; all that were found, so that one round of corrections is enough."""
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> RefuseReason:
        """The first problem's: the metric counts a pod once."""
        return self.problems[0].reason

    @property
    def message(self) -> str:
        """What the person who made the pod reads, in the event of its ReplicaSet or Job."""
        return f"refused by llm-sidecar: {told(self.problems)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inject:
    """The pod gets the proxy: hand this to `inject()`."""

    team: Team
    options: Options
    settings: InjectionSettings
    kept_token: str | None = None
    """The pod's token where an earlier call of the webhook gave it one: containers have it in their environment."""
    warnings: tuple[str, ...] = ()
