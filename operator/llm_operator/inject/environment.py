"""The environment of an app's container: each SDK's URL and key as a pair, and loopback out of the way of proxies.

A URL without its key would send the app's own key to the proxy, a key without its URL our token to the provider.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_operator.inject.options import EnvironmentPolicy
from llm_operator.inject.pod import Document
from llm_sidecar.contract.names import PodAnnotation

Operation = dict[str, Any]
"""One operation of a JSON Patch."""

_LOOPBACK: Final = ("127.0.0.1", "localhost")
_PROXY_VARIABLES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_NO_PROXY: Final = "no_proxy"


@dataclass(frozen=True, slots=True)
class SDKEnvironment:
    """What leads one SDK to the proxy."""

    name: str
    variables: Mapping[str, str]
    """All of them or none."""
    diversions: Mapping[str, str]
    """Variables that would lead it elsewhere, with the value that keeps it: an app that sets one has its own way."""


def sdk_environments(*, port: int, token: str) -> tuple[SDKEnvironment, ...]:
    """The environments of the three SDKs, for a proxy on this port."""
    origin = f"http://127.0.0.1:{port}"
    return (
        SDKEnvironment("OpenAI", {"OPENAI_BASE_URL": f"{origin}/v1", "OPENAI_API_KEY": token}, {}),
        SDKEnvironment(
            "Anthropic",
            {"ANTHROPIC_BASE_URL": origin, "ANTHROPIC_API_KEY": token},
            {"ANTHROPIC_AUTH_TOKEN": token},
        ),
        SDKEnvironment(
            "Google",
            # google-genai prefers GOOGLE_API_KEY where both are set, older ones read GEMINI_API_KEY alone.
            {"GOOGLE_GEMINI_BASE_URL": origin, "GEMINI_API_KEY": token, "GOOGLE_API_KEY": token},
            {"GOOGLE_GENAI_USE_VERTEXAI": "false", "GOOGLE_GENAI_USE_ENTERPRISE": "false"},
        ),
    )


def environment_operations(
    container: Document, *, path: str, sdks: Sequence[SDKEnvironment], policy: EnvironmentPolicy
) -> list[Operation]:
    """What makes a container's environment complete; nothing where it is."""
    if policy is EnvironmentPolicy.NONE:
        return []
    environment = container.get("env") or []
    operations: list[Operation] = []
    added: list[dict[str, str]] = []
    for sdk in sdks:
        if policy is EnvironmentPolicy.IF_ABSENT and _foreign(environment, sdk):
            continue
        operations += _replacements(environment, sdk, path)
        added += [{"name": name, "value": value} for name, value in _missing(environment, sdk)]
    operations += _loopback_operations(environment, path)
    if _lacks_no_proxy(environment):
        added.append({"name": _NO_PROXY.upper(), "value": ",".join(_LOOPBACK)})
    return [*operations, *_additions(added, environment, path)]


def environment_warnings(
    container: Document, *, sdks: Sequence[SDKEnvironment], policy: EnvironmentPolicy
) -> Iterator[str]:
    """What the owner of the container should know."""
    if policy is EnvironmentPolicy.NONE:
        return
    environment = container.get("env") or []
    for sdk in sdks if policy is EnvironmentPolicy.IF_ABSENT else ():
        own = list(dict.fromkeys(environment[position]["name"] for position in _foreign(environment, sdk)))
        if own:
            more = ", …" if len(own) > 2 else ""
            yield (
                f"container {container['name']} sets {', '.join(own[:2])}{more}: its {sdk.name} SDK keeps its own key "
                f"and URL and does not use the proxy. Remove them, or set {PodAnnotation.ENV}: Override"
            )
    if _uses_proxy(environment):
        for entry in environment:
            if _is_no_proxy(entry) and entry.get("valueFrom"):
                yield (
                    f"container {container['name']}: {entry['name']} comes from valueFrom and cannot be extended; "
                    f"it must contain {_LOOPBACK[0]}, else calls to llm-sidecar go to the HTTP proxy"
                )


def _foreign(environment: Sequence[Document], sdk: SDKEnvironment) -> list[int]:
    """Positions of entries that the app set for itself."""
    ours = {**sdk.variables, **sdk.diversions}
    return [
        position
        for position, entry in enumerate(environment)
        if entry["name"] in ours and (entry.get("valueFrom") or not _same(entry, ours[entry["name"]]))
    ]


def _same(entry: Document, value: str) -> bool:
    given = entry.get("value") or ""
    return bool(given == value or (value == "false" and given.lower() in {"", "0", "false"}))


def _replacements(environment: Sequence[Document], sdk: SDKEnvironment, path: str) -> Iterator[Operation]:
    ours = {**sdk.variables, **sdk.diversions}
    for position in _foreign(environment, sdk):
        name = environment[position]["name"]
        yield {"op": "replace", "path": f"{path}/env/{position}", "value": {"name": name, "value": ours[name]}}


def _missing(environment: Sequence[Document], sdk: SDKEnvironment) -> Iterator[tuple[str, str]]:
    present = {entry["name"] for entry in environment}
    return ((name, value) for name, value in sdk.variables.items() if name not in present)


def _additions(added: Sequence[dict[str, str]], environment: Sequence[Document], path: str) -> list[Operation]:
    if not added:
        return []
    if not environment:
        return [{"op": "add", "path": f"{path}/env", "value": list(added)}]
    # In front, so that the app's own entries can refer to ours: MY_URL: $(OPENAI_BASE_URL).
    return [{"op": "add", "path": f"{path}/env/{position}", "value": entry} for position, entry in enumerate(added)]


def _uses_proxy(environment: Sequence[Document]) -> bool:
    return any(
        entry["name"].lower() in _PROXY_VARIABLES and (entry.get("value") or entry.get("valueFrom"))
        for entry in environment
    )


def _is_no_proxy(entry: Document) -> bool:
    return bool(entry["name"].lower() == _NO_PROXY)


def _lacks_no_proxy(environment: Sequence[Document]) -> bool:
    return _uses_proxy(environment) and not any(map(_is_no_proxy, environment))


def _loopback_operations(environment: Sequence[Document], path: str) -> Iterator[Operation]:
    if not _uses_proxy(environment):
        return
    for position, entry in enumerate(environment):
        # Both spellings: Python prefers the small one, Go the large one.
        if _is_no_proxy(entry) and not entry.get("valueFrom"):
            hosts = [host for host in re.split(r"[,\s]+", entry.get("value") or "") if host]
            missing = [host for host in _LOOPBACK if host not in hosts]
            if missing and "*" not in hosts:
                operation = "replace" if "value" in entry else "add"
                yield {
                    "op": operation,
                    "path": f"{path}/env/{position}/value",
                    "value": ",".join([*hosts, *missing]),
                }
