"""A pod that looks injected is its author's text: only what cannot run other code beside our keys is tolerated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonpatch
import pytest

from llm_operator.inject import Inject, Refuse, RefuseReason, Skip, inject
from tests.golden.injection import CASES, TOKEN, decision_about, read_pod

CASE = CASES / "deployment"
TOKENS = "/var/run/secrets/tokens"


@pytest.fixture(name="pod")
def _pod() -> dict[str, Any]:
    pod = read_pod(CASE)
    decision = decision_about(pod, CASE)
    assert isinstance(decision, Inject)
    patched: dict[str, Any] = jsonpatch.apply_patch(pod, inject(pod, decision, token=TOKEN))
    return copy.deepcopy(patched)


class Change:
    """What somebody did to our container; its name is the test's."""

    def __init__(self, name: str, apply: Callable[[dict[str, Any]], Any]) -> None:
        self.name = name
        self.apply = apply


def _mount(**mount: Any) -> Change:
    name = " ".join(f"{key}={value}" for key, value in mount.items())
    return Change(f"mount {name}", lambda sidecar: sidecar["volumeMounts"].append({"name": "own", **mount}))


def _set(**fields: Any) -> Change:
    return Change(f"set {fields}", lambda sidecar: sidecar.update(fields))


def _secure(**fields: Any) -> Change:
    return Change(f"secure {fields}", lambda sidecar: sidecar["securityContext"].update(fields))


def _variable(name: str) -> Change:
    return Change(f"variable {name}", lambda sidecar: sidecar["env"].append({"name": name, "value": "/app"}))


@pytest.mark.parametrize(
    "change",
    [
        _set(image="registry.example.com/else"),
        _set(command=["cat"]),
        _set(args=["run"]),
        _set(workingDir="/app"),
        _set(envFrom=[{"configMapRef": {"name": "own"}}]),
        _set(lifecycle={"postStart": {"exec": {"command": ["cat"]}}}),
        _set(readinessProbe={"exec": {"command": ["cat"]}}),
        _set(livenessProbe={"exec": {"command": ["cat"]}}),
        _set(startupProbe={"exec": {"command": ["cat"]}}),
        _set(startupProbe=None),
        _set(restartPolicyRules=[{"action": "Restart"}]),
        _set(volumeDevices=[{"name": "own", "devicePath": "/dev/x"}]),
        _set(tty=True),
        _set(aFieldOfTomorrow="x"),
        _set(ports=[]),
        _set(securityContext=None),
        _secure(privileged=True),
        _secure(runAsNonRoot=False),
        _secure(procMount="Unmasked"),
        _secure(seccompProfile={"type": "Unconfined"}),
        _secure(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        *map(
            _variable,
            ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "SSL_CERT_FILE", "PATH", "OPENSSL_CONF"],
        ),
        _variable("LLM_SIDECAR_TOKEN"),
        Change("no token", lambda sidecar: sidecar["env"].clear()),
        Change("short token", lambda sidecar: sidecar["env"][0].update(value="short")),
        Change(
            "token from elsewhere",
            lambda sidecar: sidecar["env"][0].update(valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
        ),
        _mount(mountPath="/usr/local/lib", readOnly=True),
        _mount(mountPath="/etc/llm-sidecar/more", readOnly=True),
        _mount(mountPath="/var/run/secrets/../../../usr", readOnly=True),
        _mount(mountPath=TOKENS),
        _mount(mountPath="/var/run/secrets/kubernetes.io", readOnly=True),
        _mount(mountPath="/var/run/secrets/kubernetes.io/serviceaccount/token", readOnly=True),
        _mount(name="llm-sidecar-config", mountPath=TOKENS, readOnly=True),
        Change("sub path", lambda sidecar: sidecar["volumeMounts"][0].update(subPath="config.json")),
        Change("no mount over the token", lambda sidecar: sidecar["volumeMounts"].pop()),
    ],
    ids=lambda change: change.name,
)
def test_a_changed_container_is_refused(pod: dict[str, Any], change: Change) -> None:
    change.apply(pod["spec"]["initContainers"][0])

    decision = decision_about(pod, CASE)

    assert isinstance(decision, Refuse), decision
    assert RefuseReason.NOT_OURS in {problem.reason for problem in decision.problems}


@pytest.mark.parametrize(
    "change",
    [
        _set(resources={}),
        _set(imagePullPolicy="Always"),
        _set(resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
        _set(stdin=False),
        _set(startupProbe={"httpGet": {"path": "/app-health/llm-sidecar/startupz", "port": 15020}}),
        _secure(runAsUser=1000680000),
        *map(_variable, ["AWS_ROLE_ARN", "AZURE_CLIENT_ID", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "no_proxy"]),
        _mount(mountPath=TOKENS, readOnly=True),
    ],
    ids=lambda change: change.name,
)
def test_what_others_add_to_every_container_is_tolerated(pod: dict[str, Any], change: Change) -> None:
    change.apply(pod["spec"]["initContainers"][0])

    assert isinstance(decision_about(pod, CASE), Skip)


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "llm-sidecar-config", "emptyDir": {}},
        {"name": "llm-sidecar-config", "secret": {"secretName": "llm-sidecar.payments.default"}},
        {"name": "llm-sidecar-config", "secret": {"secretName": "llm-sidecar.payments.checkout", "optional": True}},
        {"name": "llm-sidecar-no-token", "secret": {"secretName": "own"}},
        {"name": "llm-sidecar-no-token", "emptyDir": {"medium": "Memory"}},
    ],
    ids=str,
)
def test_a_changed_volume_is_refused(pod: dict[str, Any], volume: dict[str, Any]) -> None:
    volumes = [one for one in pod["spec"]["volumes"] if one["name"] != volume["name"]]
    pod["spec"]["volumes"] = [*volumes, volume]

    assert isinstance(decision_about(pod, CASE), Refuse)


def test_a_team_that_may_no_longer_be_claimed_is_refused_though_the_pod_is_complete(pod: dict[str, Any]) -> None:
    pod["metadata"]["namespace"] = "sandbox"

    decision = decision_about(pod, CASE)

    assert isinstance(decision, Refuse)
    assert decision.reason is RefuseReason.UNKNOWN_TEAM


@pytest.mark.parametrize("list_name", ["containers", "ephemeralContainers", "initContainers"])
def test_a_second_container_with_our_name_is_refused(pod: dict[str, Any], list_name: str) -> None:
    pod["spec"].setdefault(list_name, []).append({"name": "llm-sidecar", "image": "own:1"})

    decision = decision_about(pod, CASE)

    assert isinstance(decision, Refuse)
    assert decision.reason is RefuseReason.NAME_TAKEN
