"""What the tests put beside the operator: upstreams, providers with their keys, teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from llm_sidecar.contract.names import CREDENTIALS_LABEL, GROUP_VERSION
from tests.cluster import pods

Object = dict[str, Any]

PROGRAMS: Final = Path(__file__).parent / "programs"
PROGRAMS_DIRECTORY: Final = "/programs"

PROVIDER_KEYS: Final = {
    "openai": "sk-e2e-openai-4b1f90c27de8",
    "anthropic": "sk-ant-e2e-7735d0aa91ce",
    "google": "AIza-e2e-0c5e2f8841bd",
    "fingerprint": "sk-e2e-first-e90a5c17f3b2",
}
"""Provider and key. No part of the product may show one."""


def upstreams(simulator_image: str, program_image: str) -> list[Object]:
    """The simulator, the provider that tells which key it was called with, and the labelled Secrets of all keys."""
    return [
        programs(),
        *(credentials(name, key) for name, key in PROVIDER_KEYS.items()),
        *_server("simulator", 9900, _simulator(simulator_image)),
        *_server("upstream", 9901, program("server", image=program_image, arguments=["upstream.py"])),
    ]


def shared_providers(namespace: str) -> list[Object]:
    """A provider for each API, open to all namespaces."""
    simulator, upstream = (f"http://{name}.{namespace}.svc:{port}" for name, port in _PORTS)
    return [
        provider("openai", "OpenAI", url=f"{simulator}/v1", models=[{"name": "gpt-5-mini", "aliases": ["small"]}]),
        provider(
            "anthropic",
            "Anthropic",
            url=simulator,
            models=[{"name": "claude-haiku-4-5", "aliases": ["claude-small"], "maxOutputTokens": 64000}],
        ),
        provider(
            "google",
            "Google",
            url=simulator,
            models=[{"name": "gemini-2.5-flash", "aliases": ["gemini-small"], "maxOutputTokens": 65536}],
        ),
        provider(
            "fingerprint",
            "OpenAI",
            url=f"{upstream}/v1",
            models=[{"name": "gpt-5-mini", "aliases": ["fingerprint"]}],
            priority=500,
        ),
    ]


def credentials(name: str, key: str) -> Object:
    """A Secret that the controller may read."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {CREDENTIALS_LABEL: "true"}},
        "stringData": {"api-key": key},
    }


def provider(name: str, kind: str, *, url: str, models: Sequence[Mapping[str, Any]], **spec: Any) -> Object:
    """A provider whose key is in the Secret of its name."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "LLMProvider",
        "metadata": {"name": name},
        "spec": {
            "type": kind,
            "baseURL": url,
            "credentials": {"secretKeyRef": {"name": name, "key": "api-key"}},
            "allowedNamespaces": {"from": "All"},
            "models": list(models),
            **spec,
        },
    }


def team_quota(name: str, **spec: Any) -> Object:
    """A team that may use every shared provider."""
    limits = [{"name": "daily", "per": "Day", "tokens": 100_000_000}]
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "TeamQuota",
        "metadata": {"name": name},
        "spec": {"limits": limits, **spec},
    }


def programs() -> Object:
    """The tests' programs, for pods to mount."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(PROGRAMS.glob("*.py"))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"}, "data": texts}


def program(name: str, *, image: str, arguments: Sequence[str]) -> Object:
    """A container that runs one of the programs."""
    file, *more = arguments
    mount = {"name": "programs", "mountPath": PROGRAMS_DIRECTORY, "readOnly": True}
    command = ["python", f"{PROGRAMS_DIRECTORY}/{file}", *more]
    return pods.container(name, image=image, command=command, volumeMounts=[mount])


def specification(*containers: Object, first: Sequence[Object] = (), **fields: Any) -> Object:
    """A pod's specification with the programs in it. `first` are init containers."""
    volume = {"name": "programs", "configMap": {"name": "programs"}}
    return pods.spec(*containers, sidecars=first, volumes=[volume], **{"terminationGracePeriodSeconds": 1, **fields})


def deployment(name: str, spec: Object, *, annotations: Mapping[str, str] | None = None) -> Object:
    """A Deployment of one pod."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": dict(annotations or {})}, "spec": spec},
        },
    }


_PORTS: Final = (("simulator", 9900), ("upstream", 9901))


def _simulator(image: str) -> Object:
    """It takes no other key than the right one, and has them from the Secrets: no manifest shows one."""
    apis = {"openai": "openai", "anthropic": "anthropic", "google": "gemini"}
    required = [f"--require-key={api}=$({name.upper()}_KEY)" for name, api in apis.items()]
    environment = [
        {"name": f"{name.upper()}_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "api-key"}}}
        for name in apis
    ]
    return pods.container("server", image=image, args=["simulate", "--host=0.0.0.0", *required], env=environment)


def _server(name: str, port: int, container: Object) -> list[Object]:
    container["ports"] = [{"containerPort": port}]
    container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
    return [deployment(name, specification(container)), service]
