"""The machine as a Kubernetes node: containerd, the kubelet, kube-proxy and CoreDNS, each with its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster import network, processes
from tests.cluster.certificates import Certificates
from tests.cluster.commands import run, succeeds
from tests.cluster.control_plane import write_kubeconfig
from tests.cluster.places import (
    BRIDGE_ADDRESS,
    CGROUP,
    CLUSTER_DOMAIN,
    CONTAINERD_ROOT,
    CONTAINERD_SOCKET,
    KUBECONFIG,
    NODE,
    POD_NETWORK,
    RUN,
    STATE,
)

PAUSE_IMAGE: Final = "localhost/pause:1"
POD_LOGS: Final = STATE / "pod-logs"
MAXIMUM_PODS: Final = 200
"""The pod network has 253 addresses, and a pod that is ending keeps its own for a while."""

READY_SECONDS: Final = 30.0

_CONTAINERD: Final = f"""\
version = 2
root = "{CONTAINERD_ROOT}"
state = "{RUN / "containerd"}"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{CONTAINERD_ROOT / "opt"}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE, as in many containers and small virtual machines, a lower score than one's own is refused,
# and every pod would die with "can't get final child's PID from pipe".
restrict_oom_score_adj = true
# Where `down` finds and unmounts them.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{network.CNI_CONFIGURATION}"
"""

# Every other name does not exist: a test that asks for one should fail at once, and not after a timeout.
_COREFILE: Final = f"""\
{CLUSTER_DOMAIN}:53 in-addr.arpa:53 {{
    bind {BRIDGE_ADDRESS}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {KUBECONFIG}
    }}
}}
.:53 {{
    bind {BRIDGE_ADDRESS}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def start_containerd() -> None:
    """Start containerd apart from any other on this machine, without the containers that an earlier run left."""
    network.write_cni_configuration()
    configuration = STATE / "containerd.toml"
    configuration.write_text(_CONTAINERD, encoding="utf-8")
    for folder in (CONTAINERD_ROOT, RUN):
        folder.mkdir(parents=True, exist_ok=True)
    server = _run_containerd(configuration)
    left_over = containerd("containers", "list", "--quiet").split()
    if left_over:
        containerd("containers", "delete", *left_over)
        # It read them before they were deleted, and would offer them to the kubelet.
        processes.end(server)
        _run_containerd(configuration)


def containerd(*arguments: str | Path) -> str:
    """Run a command of containerd in the kubelet's namespace; returns what it printed."""
    return run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments)


def start(binaries: Path, *, certificates: Certificates, coredns: Path) -> None:
    """Start what makes pods run and Services answer. containerd runs already."""
    _start_kubelet(binaries / "kubelet", certificates=certificates)
    _start_kube_proxy(binaries / "kube-proxy", certificates=certificates)
    corefile = STATE / "Corefile"
    corefile.write_text(_COREFILE, encoding="utf-8")
    processes.start("coredns", [coredns, "-conf", corefile])


def _run_containerd(configuration: Path) -> processes.Server:
    server = processes.start("containerd", ["containerd", "--config", configuration])
    processes.wait_until(
        lambda: succeeds("ctr", "--address", CONTAINERD_SOCKET, "version"), server=server, seconds=READY_SECONDS
    )
    return server


def _start_kubelet(binary: Path, *, certificates: Certificates) -> None:
    # Pods inherit it: without search domains and name servers of the machine.
    resolver = STATE / "resolv.conf"
    resolver.write_text(f"nameserver {BRIDGE_ADDRESS}\n", encoding="utf-8")
    configuration = _write(
        "kubelet.yaml",
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": BRIDGE_ADDRESS,
            "authentication": {"x509": {"clientCAFile": str(certificates.authority)}},
            "tlsCertFile": str(certificates.kubelet_server.certificate),
            "tlsPrivateKeyFile": str(certificates.kubelet_server.key),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [BRIDGE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(resolver),
            "podLogsDir": str(POD_LOGS),
            "maxPods": MAXIMUM_PODS,
            "makeIPTablesUtilChains": False,  # kube-proxy uses nftables
            # Nobody refills the images here, and a developer's disk may well be nearly full.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        },
    )
    kubeconfig = write_kubeconfig(
        STATE / "kubelet.kubeconfig", identity=certificates.kubelet, certificates=certificates
    )
    processes.start(
        "kubelet",
        [
            binary,
            f"--config={configuration}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={STATE / 'kubelet'}",
            f"--node-ip={BRIDGE_ADDRESS}",
            f"--hostname-override={NODE}",
        ],
    )


def _start_kube_proxy(binary: Path, *, certificates: Certificates) -> None:
    kubeconfig = write_kubeconfig(
        STATE / "kube-proxy.kubeconfig", identity=certificates.kube_proxy, certificates=certificates
    )
    configuration = _write(
        "kube-proxy.yaml",
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "hostnameOverride": NODE,
            "bindAddress": BRIDGE_ADDRESS,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            "conntrack": {"maxPerCore": 0, "min": 0},
            # Two pods on one bridge would answer each other directly, past the translation of the Service's address:
            # with the node's address as source, answers come back through the node.
            "nftables": {"masqueradeAll": True, "minSyncPeriod": "100ms"},
        },
    )
    processes.start("kube-proxy", [binary, f"--config={configuration}"])


def _write(name: str, document: dict[str, Any]) -> Path:
    path = STATE / name
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
