"""What `helm test` runs: asks the API server for two pods, without creating either, and judges its answers.

The first asks for the proxy. It must come back with it, or with the webhook's own reason for a refusal (there may be no
TeamQuota). The second uses a Secret of the proxy without asking for one, which a policy of the chart must refuse.
"""

# ruff: noqa: INP001, T201 - a loose program that talks, not a package

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = os.environ["TEST_NAMESPACE"]


def main() -> int:
    """Ask for both; the exit code is 1 where an answer is not as it should be."""
    problems = [*check_webhook(), *check_policy()]
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def check_webhook() -> list[str]:
    """What is wrong with the injection."""
    status, answer = submit(pod("llm-sidecar-test-injection", annotations={"llm-sidecar.io/inject": "true"}))
    if status == 201:
        names = [container["name"] for container in answer["spec"].get("initContainers", [])]
        if "llm-sidecar" in names:
            print("the webhook injects the proxy")
            return []
        return ["a pod that asks for the proxy was admitted without it: is the MutatingWebhookConfiguration there?"]
    message = answer.get("message", "")
    if "refused by llm-sidecar" in message:
        print(f"the webhook answers; this pod it would refuse: {message}")
        return []
    return [f"a pod that asks for the proxy was not judged by the webhook ({status}): {message}"]


def check_policy() -> list[str]:
    """What is wrong with the policy that guards the Secrets."""
    volumes = [{"name": "stolen", "secret": {"secretName": "llm-sidecar.any.team"}}]
    status, answer = submit(pod("llm-sidecar-test-policy", volumes=volumes))
    message = answer.get("message", "")
    if "provider keys" in message:
        print("the policy guards the published configuration")
        return []
    return [f"a pod may use the proxy's Secrets ({status}): is the ValidatingAdmissionPolicy there? {message}"]


def pod(name: str, annotations: dict | None = None, volumes: list | None = None) -> dict:
    """A pod that every namespace admits, whatever profile it enforces."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "app",
        "image": "never-pulled",
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
        "securityContext": security,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"containers": [container], "volumes": volumes or []},
    }


def submit(document: dict) -> tuple[int, dict]:
    """Ask for the pod with `dryRun`; returns the status and the answer."""
    token = (ACCOUNT / "token").read_text(encoding="utf-8")
    request = urllib.request.Request(
        f"https://kubernetes.default.svc/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All",
        data=json.dumps(document).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    # Straight to the API server, whatever proxy the cluster puts into its pods' environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=15) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


if __name__ == "__main__":
    sys.exit(main())
