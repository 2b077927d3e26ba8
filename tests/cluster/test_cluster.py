"""What later tests take for granted of the cluster that they run on."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import pods
from tests.cluster.cluster import RESTRICTED, Cluster

pytestmark = pytest.mark.needs("cluster")

SERVICE = "pages"
"""Not the pod's name: by that a pod finds itself, without any Service."""

SERVER = (
    "import http.server as h, signal\n"
    "signal.signal(signal.SIGTERM, lambda *_: exit())\n"
    "print('serving', flush=True)\n"
    "h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()\n"
)
SIDECAR = f"touch /shared{pods.READY}; {pods.UNTIL_TOLD}"
FETCH = """\
import sys, time, urllib.error, urllib.request
for attempt in range(100):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
        break
    except urllib.error.URLError as error:
        # A Service refuses connections until the news of its first ready pod has gone round.
        if not isinstance(error.reason, ConnectionRefusedError):
            raise
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces the restricted profile."""
    with cluster.namespace("restricted", labels=RESTRICTED) as name:
        yield name


@pytest.fixture(scope="module")
def server(cluster: Cluster, restricted: str, program_image: str) -> str:
    """The name of a running pod: a web server beside a native sidecar, and behind a Service."""
    web = pods.container("web", image=program_image, command=["python3", "-c", SERVER], ports=[{"containerPort": 8080}])
    web["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    sidecar = pods.native_sidecar("sidecar", image=program_image, script=SIDECAR)
    secret = {"name": "secret", "secret": {"secretName": "words"}}
    web["volumeMounts"] = [{"name": "secret", "mountPath": "/secret"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    words = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words"}, "stringData": {"word": "before"}}
    specification = pods.spec(web, sidecars=[sidecar], volumes=[secret])
    cluster.apply([words, service, pods.pod("web", specification)], namespace=restricted)
    cluster.wait_for("pod/web", "condition=Ready", namespace=restricted)
    return "web"


def _execute(cluster: Cluster, namespace: str, pod: str, *command: str) -> str:
    return cluster.text("exec", f"--namespace={namespace}", pod, "--container=web", "--", *command).strip()


def test_every_node_is_ready(cluster: Cluster) -> None:
    nodes = cluster.kubectl("get", "nodes")["items"]

    assert nodes
    for node in nodes:
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"


def test_a_pod_with_a_native_sidecar_runs_in_a_restricted_namespace(
    cluster: Cluster, restricted: str, server: str
) -> None:
    status = cluster.kubectl("get", "pod", server, f"--namespace={restricted}")["status"]

    assert [one["started"] for one in status["initContainerStatuses"]] == [True]
    assert [one["ready"] for one in status["containerStatuses"]] == [True]


def test_a_restricted_namespace_refuses_other_pods(cluster: Cluster, restricted: str, program_image: str) -> None:
    specification = pods.spec(pods.container("c", image=program_image), hostNetwork=True)

    with pytest.raises(Exception, match="violates PodSecurity"):
        cluster.apply(pods.pod("host", specification), namespace=restricted)


def test_a_job_with_a_native_sidecar_completes(cluster: Cluster, restricted: str, program_image: str) -> None:
    """The kubelet ends the sidecar when the Job's own container is done."""
    work = pods.shell(
        "work",
        image=program_image,
        script=f"test -e /shared{pods.READY}",
        volumeMounts=[{"name": "shared", "mountPath": "/shared"}],
    )
    sidecar = pods.native_sidecar("sidecar", image=program_image, script=SIDECAR)

    cluster.apply(pods.job("job", pods.spec(work, sidecars=[sidecar])), namespace=restricted)

    cluster.wait_for("job/job", "condition=Complete", namespace=restricted)


@pytest.mark.parametrize("name", [SERVICE, f"{SERVICE}.{{namespace}}", f"{SERVICE}.{{namespace}}.svc.cluster.local"])
def test_a_pod_reaches_a_service_by_name(cluster: Cluster, restricted: str, server: str, name: str) -> None:
    """By all three names; here the Service's only pod reaches itself."""
    url = f"http://{name.format(namespace=restricted)}/"

    assert _execute(cluster, restricted, server, "python3", "-c", FETCH, url) == "200"


def test_a_pod_reaches_another_pod_by_its_service(
    cluster: Cluster, restricted: str, server: str, program_image: str
) -> None:
    client = pods.container(
        "client", image=program_image, command=["python3", "-c", FETCH, f"http://{SERVICE}.{restricted}.svc/"]
    )

    cluster.apply(pods.job("client", pods.spec(client)), namespace=restricted)

    cluster.wait_for("job/client", "condition=Complete", namespace=restricted)


def test_a_name_that_nobody_has_is_refused_at_once(cluster: Cluster, restricted: str, server: str) -> None:
    look_up = "import socket\ntry: socket.getaddrinfo('nobody.example', 80)\nexcept socket.gaierror: print('refused')"
    began = time.monotonic()

    assert _execute(cluster, restricted, server, "python3", "-c", look_up) == "refused"
    assert time.monotonic() - began < 5


def test_the_api_server_answers_a_pod_by_its_own_account(cluster: Cluster, restricted: str, server: str) -> None:
    ask = (
        "import ssl, urllib.request as r; d='/var/run/secrets/kubernetes.io/serviceaccount/';"
        "h={'Authorization': 'Bearer ' + open(d+'token').read()};"
        "q=r.Request('https://kubernetes.default.svc/version', headers=h);"
        "print(r.urlopen(q,timeout=5,context=ssl.create_default_context(cafile=d+'ca.crt')).status)"
    )

    assert _execute(cluster, restricted, server, "python3", "-c", ask) == "200"


def test_logs_and_exec_work(cluster: Cluster, restricted: str, server: str) -> None:
    assert "serving" in cluster.text("logs", f"--namespace={restricted}", server, "--container=web")
    assert _execute(cluster, restricted, server, "id", "-u") == "65532"


def test_a_mounted_secret_changes_within_two_seconds_of_an_annotation(
    cluster: Cluster, restricted: str, server: str
) -> None:
    """The kubelet looks at a pod again when the pod changes; for a Secret alone it may take a minute or more."""
    place = f"--namespace={restricted}"
    assert _execute(cluster, restricted, server, "cat", "/secret/word") == "before"
    word = base64.b64encode(b"after").decode()

    cluster.text("patch", "secret", "words", place, f'--patch={{"data": {{"word": "{word}"}}}}')
    cluster.text("annotate", "pod", server, place, "llm-sidecar.io/config-hash=2")
    took_seconds = cluster.wait_until(
        lambda: _execute(cluster, restricted, server, "cat", "/secret/word") == "after",
        what="the new word is in the pod",
    )

    print(f"mounted Secret: new after {took_seconds:.2f} s")
    assert took_seconds < 2


def test_a_namespace_of_a_test_goes_away(cluster: Cluster, namespace: Callable[..., str]) -> None:
    with cluster.namespace("short-lived") as name:
        assert cluster.kubectl("get", "namespace", name)["status"]["phase"] == "Active"

    cluster.wait_for(f"namespace/{name}", "delete")
