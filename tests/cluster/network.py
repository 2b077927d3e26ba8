"""The bridge that pods and control plane share, and the cleaning of everything that the cluster puts into the kernel.

The network leads nowhere else: no masquerading, no name servers but ours. Tests reach what they start and nothing more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster.commands import ClusterUnavailable, run, succeeds
from tests.cluster.places import BRIDGE, BRIDGE_ADDRESS, POD_NETWORK, RUN, STATE

CNI_NETWORK: Final = "llm-sidecar-cluster"
CNI_CONFIGURATION: Final = STATE / "cni"
_CNI_RESULTS: Final = Path("/var/lib/cni/results")
"""Where the plugins' library notes what it did, whoever calls it."""


def make_bridge() -> None:
    """The bridge, before any pod needs it: it carries the API server's address."""
    in_the_way = [route for route in _routes() if route.get("dst") == POD_NETWORK and route.get("dev") != BRIDGE]
    if in_the_way:
        raise ClusterUnavailable(
            f"the pod network {POD_NETWORK} is already routed to {in_the_way[0].get('dev')}: another cluster runs here"
        )
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{BRIDGE_ADDRESS}/{POD_NETWORK.rpartition('/')[2]}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")


def write_cni_configuration() -> None:
    """How the container runtime joins a pod to the bridge."""
    CNI_CONFIGURATION.mkdir(parents=True, exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "hairpinMode": True,  # a pod may reach itself by its Service
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_NETWORK, "gateway": BRIDGE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(RUN / "addresses"),
        },
    }
    document = {"cniVersion": "1.0.0", "name": CNI_NETWORK, "plugins": [bridge]}
    (CNI_CONFIGURATION / "10-bridge.conflist").write_text(json.dumps(document, indent=2), encoding="utf-8")


def remove(*, kube_proxy_ran: bool) -> None:
    """Take out what the cluster put in. Pods' own ends went with their namespaces."""
    if succeeds("ip", "link", "show", BRIDGE):
        run("ip", "link", "delete", BRIDGE)
    if kube_proxy_ran:
        for family in ("ip", "ip6"):
            succeeds("nft", "delete", "table", family, "kube-proxy")
    for path in _CNI_RESULTS.glob("*"):
        # Each names the network namespace that it is about: ours lie in our folder.
        if str(RUN) in path.read_text(encoding="utf-8"):
            path.unlink()


def unmount_below(*folders: Path) -> None:
    """Unmount everything inside these folders, the innermost first: volumes, containers' file systems, namespaces."""
    while mounts := [point for point in _mount_points() if any(folder in point.parents for folder in folders)]:
        for point in sorted(mounts, key=lambda path: len(path.parts), reverse=True):
            # Lazily: a process that is about to be gone may still hold it.
            run("umount", "--lazy", point)


def _mount_points() -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        yield Path(os.fsdecode(os.fsencode(line.split(" ")[4]).decode("unicode_escape").encode("latin-1")))


def _routes() -> list[dict[str, str]]:
    routes: list[dict[str, str]] = json.loads(run("ip", "-json", "route") or "[]")
    return routes
