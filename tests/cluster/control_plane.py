"""etcd, the API server, the controller manager and the scheduler: what each is told, and when it is ready."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster import processes
from tests.cluster.certificates import Certificates, KeyPair
from tests.cluster.places import (
    API_PORT,
    BRIDGE_ADDRESS,
    CLUSTER_DOMAIN,
    KUBECONFIG,
    SERVICE_NETWORK,
    STATE,
)

ETCD_CLIENT: Final = "http://127.0.0.1:12379"
"""Not etcd's usual ports, which another cluster on this machine may use. Loopback only, hence without TLS."""

ETCD_PEER: Final = "http://127.0.0.1:12380"
READY_SECONDS: Final = 60.0
"""Each takes a few; a machine that is busy building something else is slower."""


def start(binaries: Path, *, certificates: Certificates) -> None:
    """Start all four with empty data. Returns when the API server answers and the other two are at work."""
    _start_etcd(binaries / "etcd")
    server = processes.start("kube-apiserver", _api_server(binaries / "kube-apiserver", certificates=certificates))
    write_kubeconfig(KUBECONFIG, identity=certificates.admin, certificates=certificates)
    processes.wait_until(
        lambda: _answers(API_PORT, "/readyz", certificates=certificates), server=server, seconds=READY_SECONDS
    )
    _start_client(
        "kube-controller-manager",
        binaries=binaries,
        identity=certificates.controller_manager,
        certificates=certificates,
        port=10257,
        arguments=(
            f"--service-account-private-key-file={certificates.service_account_key}",
            f"--root-ca-file={certificates.authority}",
            "--use-service-account-credentials=true",
        ),
    )
    _start_client(
        "kube-scheduler",
        binaries=binaries,
        identity=certificates.scheduler,
        certificates=certificates,
        port=10259,
    )


def write_kubeconfig(path: Path, *, identity: KeyPair, certificates: Certificates) -> Path:
    """A kubeconfig that holds everything in itself: it may be copied, and outlives the folder of certificates."""
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "llm-sidecar",
                "cluster": {
                    "server": f"https://{BRIDGE_ADDRESS}:{API_PORT}",
                    "certificate-authority-data": _base64(certificates.authority),
                },
            }
        ],
        "users": [
            {
                "name": path.stem,
                "user": {
                    "client-certificate-data": _base64(identity.certificate),
                    "client-key-data": _base64(identity.key),
                },
            }
        ],
        "contexts": [{"name": "llm-sidecar", "context": {"cluster": "llm-sidecar", "user": path.stem}}],
        "current-context": "llm-sidecar",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def answers(*, certificates_folder: Path, path: str = "/readyz") -> bool:
    """Whether the API server of a cluster that was started earlier answers."""
    pair = KeyPair(certificate=certificates_folder / "admin.crt", key=certificates_folder / "admin.key")
    return pair.key.exists() and _get(API_PORT, path, authority=certificates_folder / "ca.crt", identity=pair)


def _start_etcd(binary: Path) -> None:
    server = processes.start(
        "etcd",
        [
            binary,
            f"--data-dir={STATE / 'etcd'}",
            f"--listen-client-urls={ETCD_CLIENT}",
            f"--advertise-client-urls={ETCD_CLIENT}",
            f"--listen-peer-urls={ETCD_PEER}",
            f"--initial-advertise-peer-urls={ETCD_PEER}",
            f"--initial-cluster=default={ETCD_PEER}",
            "--unsafe-no-fsync",  # its data is not kept
            "--log-level=warn",
        ],
    )
    # The API server asks again until etcd answers, but says so in its log on every attempt.
    processes.wait_until(_is_listening(12379), server=server, seconds=READY_SECONDS)


def _api_server(binary: Path, *, certificates: Certificates) -> list[str | Path]:
    return [
        binary,
        f"--etcd-servers={ETCD_CLIENT}",
        "--authorization-mode=Node,RBAC",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        # The bridge's own address, so that pods reach it as kubernetes.default.svc.
        f"--advertise-address={BRIDGE_ADDRESS}",
        # Without it `kubectl logs` and `exec` look up the node's name, which no name server knows.
        "--kubelet-preferred-address-types=InternalIP",
        f"--client-ca-file={certificates.authority}",
        f"--tls-cert-file={certificates.api_server.certificate}",
        f"--tls-private-key-file={certificates.api_server.key}",
        f"--kubelet-certificate-authority={certificates.authority}",
        f"--kubelet-client-certificate={certificates.api_server_to_kubelet.certificate}",
        f"--kubelet-client-key={certificates.api_server_to_kubelet.key}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={certificates.service_account_public_key}",
        f"--service-account-signing-key-file={certificates.service_account_key}",
        # Requests that were on their way when it is told to end need not be waited for.
        "--shutdown-delay-duration=0s",
    ]


def _start_client(
    name: str,
    *,
    binaries: Path,
    identity: KeyPair,
    certificates: Certificates,
    port: int,
    arguments: tuple[str, ...] = (),
) -> None:
    kubeconfig = write_kubeconfig(STATE / f"{name}.kubeconfig", identity=identity, certificates=certificates)
    processes.start(
        name,
        [
            binaries / name,
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--leader-elect=false",  # there is one of each, and a lease would be waited for at every start
            *arguments,
        ],
    )


def _answers(port: int, path: str, *, certificates: Certificates) -> bool:
    return _get(port, path, authority=certificates.authority, identity=certificates.admin)


def _get(port: int, path: str, *, authority: Path, identity: KeyPair) -> bool:
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(identity.certificate, identity.key)
    connection = HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _is_listening(port: int) -> Callable[[], bool]:
    def listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return listening


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
