"""The pod annotations under our prefix: what each may say, and what is told to those who wrote something else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from llm_operator.inject.quantity import amount
from llm_sidecar.contract.names import (
    ADMIN_PORT,
    ANNOTATION_PREFIX,
    CONFIG_HASH_ANNOTATION,
    PROXY_PORT,
    STATUS_ANNOTATION,
    PodAnnotation,
)
from llm_sidecar.contract.violations import nearest

LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_LOWEST_PORT: Final = 1024
"""Below it a port needs a privilege that the proxy does not have."""
_LEAST_MEMORY: Final = "32Mi"
"""The proxy does not start with less; mostly it is `256m`, a quarter of a byte, where `256Mi` was meant."""
_LEAST_CPU: Final = "1m"
_SHOWN_CHARACTERS: Final = 24
"""How much of a wrong value a message repeats: enough to find it, too little for a key that was pasted there."""
_MAX_WARNED_KEYS: Final = 8

_NAME: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TEAM: Final = re.compile(f"(?:(?P<namespace>{_NAME})/)?(?P<name>{_NAME})")
_CONTAINER: Final = re.compile(_NAME)


class EnvironmentPolicy(StrEnum):
    """What happens to the environment of the app's containers."""

    IF_ABSENT = "IfAbsent"
    OVERRIDE = "Override"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a pod asked for. None: the settings' own."""

    team: str | None = None
    """As written: `NAME` or `NAMESPACE/NAME`."""
    containers: tuple[str, ...] | None = None
    """None: all."""
    port: int = PROXY_PORT
    admin_port: int = ADMIN_PORT
    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None
    log_level: str | None = None
    env: EnvironmentPolicy = EnvironmentPolicy.IF_ABSENT

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> tuple[Self, tuple[str, ...]]:
        """The options, and one sentence about each annotation that cannot be used."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for key, parse in _PARSERS.items():
            if annotations.get(key) is not None:
                try:
                    values[_field(key)] = parse(annotations[key].strip())
                except ValueError as error:
                    problems.append(f"{key}: {_shown(annotations[key])} {error}")
        options = cls(**values)
        return options, (*problems, *_contradictions(options))


class OptIn(StrEnum):
    """What `llm-sidecar.io/inject` says."""

    ABSENT = "absent"
    YES = "true"
    NO = "false"
    INVALID = "invalid"


def opt_in(annotations: Mapping[str, Any]) -> OptIn:
    """Whether the pod asks for the proxy."""
    value = annotations.get(PodAnnotation.INJECT)
    if value is None:
        return OptIn.ABSENT
    said = value.strip().lower() if isinstance(value, str) else ""
    return OptIn(said) if said in (OptIn.YES, OptIn.NO) else OptIn.INVALID


def invalid_opt_in(annotations: Mapping[str, str]) -> str:
    """The sentence about an `inject` that is neither."""
    return f'{PodAnnotation.INJECT}: {_shown(annotations[PodAnnotation.INJECT])} must be "true" or "false"'


def key_warnings(annotations: Mapping[str, Any]) -> tuple[str, ...]:
    """About keys under our prefix that nobody reads, or that are not the pod's to set."""
    found = [warning for key in annotations if (warning := _key_warning(key))]
    if opt_in(annotations) is OptIn.ABSENT:
        found += _options_without_opt_in(annotations)
    return tuple(found[:_MAX_WARNED_KEYS])


def parse_team(text: str, *, namespace: str) -> tuple[str, str]:
    """Namespace and name of the TeamQuota that a pod of `namespace` means."""
    match = _TEAM.fullmatch(text)
    if match is None:
        raise ValueError("is not a team: write NAME, or NAMESPACE/NAME for one of another namespace")
    return match["namespace"] or namespace, match["name"]


def _key_warning(key: str) -> str | None:
    if not key.startswith(ANNOTATION_PREFIX) or key in set(PodAnnotation) or key == STATUS_ANNOTATION:
        return None
    if key == CONFIG_HASH_ANNOTATION:
        return f"annotation {key} is written by the controller: remove it from the pod template"
    known = [annotation.removeprefix(ANNOTATION_PREFIX) for annotation in PodAnnotation]
    name = key.removeprefix(ANNOTATION_PREFIX)
    meant = nearest(name, known)
    hint = f"did you mean {ANNOTATION_PREFIX}{meant}?" if meant else f"known are {', '.join(known)}"
    return f"unknown annotation {ANNOTATION_PREFIX}{name[:63]}: {hint}"


def _options_without_opt_in(annotations: Mapping[str, Any]) -> Iterator[str]:
    given = [key.removeprefix(ANNOTATION_PREFIX) for key in _PARSERS if key in annotations]
    if given:
        yield (
            f'without {PodAnnotation.INJECT}: "true" the pod gets no proxy; its annotations {", ".join(given)} '
            "have no effect"
        )


def _field(key: PodAnnotation) -> str:
    return key.removeprefix(ANNOTATION_PREFIX).replace("-", "_")


def _shown(value: str) -> str:
    shown = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    return f'"{shown}"'.encode("unicode_escape").decode() if not shown.isprintable() else f'"{shown}"'


def _team(text: str) -> str:
    parse_team(text, namespace="any")
    return text


def _containers(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    if not all(_CONTAINER.fullmatch(name) for name in names):
        raise ValueError("is not a list of container names: write them with commas between, or remove it for all")
    return tuple(dict.fromkeys(names))


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{4,5}", text) or not _LOWEST_PORT <= int(text) <= 65535:
        raise ValueError(f"is not a port that the proxy can use: write a number from {_LOWEST_PORT} to 65535")
    return int(text)


def _quantity(least: str, *, example: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        asked, lowest = amount(text), amount(least)
        if asked is None or lowest is None:
            raise ValueError(f"is not a quantity: write one like {example}")
        if asked < lowest:
            raise ValueError(f"is less than {least}, the least that the proxy needs: write more, like {example}")
        return text

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            meant = nearest(text, list(choices))
            hint = f"; did you mean {meant}?" if meant else ""
            raise ValueError(f"must be one of {', '.join(choices)}{hint}")
        return text

    return parse


def _environment(text: str) -> EnvironmentPolicy:
    return EnvironmentPolicy(_one_of(*EnvironmentPolicy)(text))


_cpu: Final = _quantity(_LEAST_CPU, example="100m")
_memory: Final = _quantity(_LEAST_MEMORY, example="256Mi")

_PARSERS: Final[Mapping[PodAnnotation, Callable[[str], Any]]] = {
    PodAnnotation.TEAM: _team,
    PodAnnotation.CONTAINERS: _containers,
    PodAnnotation.PORT: _port,
    PodAnnotation.ADMIN_PORT: _port,
    PodAnnotation.CPU_REQUEST: _cpu,
    PodAnnotation.CPU_LIMIT: _cpu,
    PodAnnotation.MEMORY_REQUEST: _memory,
    PodAnnotation.MEMORY_LIMIT: _memory,
    PodAnnotation.LOG_LEVEL: _one_of(*LOG_LEVELS),
    PodAnnotation.ENV: _environment,
}


def _contradictions(options: Options) -> Iterator[str]:
    if options.port == options.admin_port:
        yield f"{PodAnnotation.PORT} and {PodAnnotation.ADMIN_PORT} are both {options.port}: they must differ"
    if _exceeds(options.cpu_request, options.cpu_limit):
        yield f"{PodAnnotation.CPU_REQUEST} is more than {PodAnnotation.CPU_LIMIT}: a request may not exceed its limit"
    if _exceeds(options.memory_request, options.memory_limit):
        yield (
            f"{PodAnnotation.MEMORY_REQUEST} is more than {PodAnnotation.MEMORY_LIMIT}: "
            "a request may not exceed its limit"
        )


def _exceeds(request: str | None, limit: str | None) -> bool:
    asked, allowed = amount(request), amount(limit)
    return asked is not None and allowed is not None and asked > allowed
