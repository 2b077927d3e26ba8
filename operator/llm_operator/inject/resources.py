"""How much processor time and memory the proxy asks for, without changing the pod's quality of service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_operator.inject.options import Options
from llm_operator.inject.pod import Document, containers_of
from llm_operator.inject.quantity import amount
from llm_operator.inject.settings import InjectionSettings
from llm_sidecar.contract.names import SIDECAR_CONTAINER, PodAnnotation

_RESOURCES: Final = ("cpu", "memory")


def sidecar_resources(pod: Document, *, options: Options, settings: InjectionSettings) -> dict[str, dict[str, str]]:
    """The `resources` of the proxy's container: requests always, or an autoscaler could not compute utilisation."""
    if has_own_budget(pod):
        # What a pod has as a whole may be exactly what its containers ask for: more would be refused.
        return _as_written(options)
    if is_guaranteed(pod):
        return _guaranteed(options, settings)
    cpu = _amounts(options.cpu_request, options.cpu_limit, settings.cpu_request, settings.cpu_limit)
    memory = _amounts(options.memory_request, options.memory_limit, settings.memory_request, settings.memory_limit)
    return _document(cpu, memory)


def resource_warnings(pod: Document, *, options: Options) -> tuple[str, ...]:
    """Told where the options take the Guaranteed class from a pod."""
    if not is_guaranteed(pod) or has_own_budget(pod):
        return ()
    pairs = ((options.cpu_request, options.cpu_limit), (options.memory_request, options.memory_limit))
    if all(request is None or limit is None or amount(request) == amount(limit) for request, limit in pairs):
        return ()
    warning = (
        "the proxy's requests differ from its limits, so the pod's QoS class becomes Burstable: give only "
        f"{PodAnnotation.CPU_LIMIT} and {PodAnnotation.MEMORY_LIMIT} to keep Guaranteed"
    )
    return (warning,)


def is_guaranteed(pod: Document) -> bool:
    """True if every container of the app has limits, and no other requests: the kubelet evicts such pods last."""
    apps = [one for _, _, one in containers_of(pod, "initContainers", "containers") if one["name"] != SIDECAR_CONTAINER]
    return bool(apps) and all(_has_equal_limits(one.get("resources") or {}) for one in apps)


def has_own_budget(pod: Document) -> bool:
    """True where the pod as a whole has resources (Kubernetes ≥1.34)."""
    resources = pod["spec"].get("resources") or {}
    return bool(resources.get("requests") or resources.get("limits"))


def _has_equal_limits(resources: Mapping[str, Any]) -> bool:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return all(
        (limit := amount(limits.get(name))) is not None and limit > 0 and amount(requests.get(name, limit)) == limit
        for name in _RESOURCES
    )


def _as_written(options: Options) -> dict[str, dict[str, str]]:
    return _document((options.cpu_request, options.cpu_limit), (options.memory_request, options.memory_limit))


def _guaranteed(options: Options, settings: InjectionSettings) -> dict[str, dict[str, str]]:
    cpu = options.cpu_limit or options.cpu_request or settings.cpu_limit or settings.guaranteed_cpu
    memory = options.memory_limit or options.memory_request or settings.memory_limit
    return _document(
        (options.cpu_request or cpu, options.cpu_limit or cpu),
        (options.memory_request or memory, options.memory_limit or memory),
    )


def _amounts(
    asked_request: str | None, asked_limit: str | None, request: str, limit: str | None
) -> tuple[str, str | None]:
    """A default gives way to what was asked for: no request above its limit."""
    wanted, bound = asked_request or request, asked_limit or limit
    if bound is None or not _exceeds(wanted, bound):
        return wanted, bound
    return (bound, bound) if asked_request is None else (wanted, wanted)


def _exceeds(request: str, limit: str) -> bool:
    asked, allowed = amount(request), amount(limit)
    return asked is not None and allowed is not None and asked > allowed


def _document(cpu: tuple[str | None, str | None], memory: tuple[str | None, str | None]) -> dict[str, dict[str, str]]:
    requests = {name: value for name, value in zip(_RESOURCES, (cpu[0], memory[0]), strict=True) if value}
    limits = {name: value for name, value in zip(_RESOURCES, (cpu[1], memory[1]), strict=True) if value}
    return {key: amounts for key, amounts in (("requests", requests), ("limits", limits)) if amounts}
