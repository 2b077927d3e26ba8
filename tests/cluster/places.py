"""Where the cluster's parts live on this machine, and by which addresses they find each other.

There is one cluster to a machine, whichever checkout started it: its bridge and addresses are the machine's, so its
state lies in the user's cache and not in the work tree.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The repository."""

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-sidecar" / "cluster"
"""What costs minutes to make: binaries, the base image, what containerd has unpacked."""

STATE: Final = CACHE / "state"
"""The running cluster: certificates, configurations, process ids, logs, etcd's data, the kubelet's folder."""

LOGS: Final = STATE / "logs"
KUBECONFIG: Final = STATE / "admin.kubeconfig"

RUN: Final = Path("/run/llm-sidecar-cluster")
"""Sockets and containerd's state: short paths, because a socket's may have 107 characters, and gone after a reboot."""

BUILDAH_RUN: Final = Path("/run/llm-sidecar-buildah")
"""Apart from the cluster's: images may be built while it goes up or down."""

CONTAINERD_ROOT: Final = CACHE / "containerd"
CONTAINERD_SOCKET: Final = RUN / "containerd.sock"

NODE: Final = "llm-sidecar-node"
BRIDGE: Final = "llm-sidecar0"
BRIDGE_ADDRESS: Final = "10.244.0.1"
"""Also the node's address, the API server's and CoreDNS's: it exists before the first pod does."""

POD_NETWORK: Final = "10.244.0.0/24"
SERVICE_NETWORK: Final = "10.96.0.0/16"
API_SERVICE_ADDRESS: Final = "10.96.0.1"
API_PORT: Final = 6443
CLUSTER_DOMAIN: Final = "cluster.local"

CGROUP: Final = "llm-sidecar-cluster"
"""Parent of all pods' control groups: every process found below it is one of this cluster's containers."""
