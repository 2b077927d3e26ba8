"""The one-node cluster as a whole: brought up, told about, taken down, and cleaned after a run that was cut short.

Every start is a fresh cluster: etcd begins empty and certificates are new. What takes long is kept apart from it:
binaries, and the images that containerd has already unpacked.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.cluster import (
    binaries,
    certificates,
    control_groups,
    control_plane,
    images,
    network,
    node,
    packages,
    processes,
)
from tests.cluster.commands import ClusterError, run, succeeds
from tests.cluster.places import BUILDAH_RUN, CACHE, CONTAINERD_ROOT, KUBECONFIG, LOGS, NODE, RUN, STATE
from tests.cluster.stages import stage

NODE_READY_SECONDS: Final = 90.0
_CERTIFICATES: Final = STATE / "certificates"
_DEVICE_SOCKET: Final = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
_COMPONENTS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
    "coredns",
)
_CAPABILITIES: Final = (12, 21)
"""NET_ADMIN and SYS_ADMIN, by their numbers in the kernel. Root in a container often has neither."""
_LAST_TO_END: Final = ("containerd", "kube-apiserver", "etcd")
"""What others still write to while they end."""


def why_not() -> str | None:
    """Why this machine cannot have the cluster; None: it can."""
    if sys.platform != "linux":
        return "the one-node cluster needs Linux"
    if os.geteuid() != 0:
        return "the one-node cluster needs root"
    if not _may_make_networks_and_mounts():
        return "the one-node cluster needs the capabilities NET_ADMIN and SYS_ADMIN, which this container lacks"
    return packages.why_not()


def prepare() -> tuple[Path, Path]:
    """Install and build what is not there yet; returns the folder of Kubernetes' programs, and CoreDNS."""
    with stage("packages"):
        packages.install_missing()
    return binaries.folder_of(binaries.KUBERNETES), binaries.program(binaries.COREDNS, "coredns")


def up() -> Path:
    """Bring the cluster up, or find it running; returns the path of its kubeconfig."""
    # All of it before anything is started: a first build takes minutes.
    kubernetes, coredns = prepare()
    if is_healthy():
        return KUBECONFIG
    clean()
    try:
        with stage("start"):
            _start(kubernetes, coredns=coredns)
    except BaseException:
        # Also on Ctrl-C. The logs stay.
        clean()
        raise
    return KUBECONFIG


def down() -> None:
    """Take the cluster down. Binaries, images and the logs of its components stay."""
    clean()
    if shutil.which("buildah"):
        images.Buildah().forget_interrupted()
    network.unmount_below(CACHE, BUILDAH_RUN)


def clean() -> None:
    """End and remove whatever is there of a cluster of ours, be it running, half started or half ended."""
    servers = sorted(processes.known(), key=lambda server: _end_order(server.name))
    for server in servers:
        if server.name == "containerd":
            # The kubelet is gone and starts nothing anew; containerd still tidies up behind what ends.
            control_groups.end_everything()
        processes.end(server)
    control_groups.end_everything()
    network.unmount_below(STATE, RUN, CONTAINERD_ROOT)
    network.remove(kube_proxy_ran=any(server.name == "kube-proxy" for server in servers))
    _remove_files()


def is_healthy() -> bool:
    """Whether all of it runs, and the API server answers."""
    running = {server.name for server in processes.known() if server.is_running()}
    return running.issuperset(_COMPONENTS) and control_plane.answers(certificates_folder=_CERTIFICATES)


def status() -> Sequence[str]:
    """What runs where, a line each."""
    servers = {server.name: server for server in processes.known()}
    lines = []
    for name in _COMPONENTS:
        server = servers.get(name)
        if server is None:
            lines.append(f"{name:<24} not started")
        else:
            lines.append(f"{name:<24} {f'pid {server.pid}' if server.is_running() else 'ended':<12} {server.log}")
    return lines


def load(tag: str, *, builder: images.Builder) -> None:
    """Give an image to containerd, unless it has it."""
    if tag in node.containerd("images", "list", "--quiet").split():
        return
    with stage("images to the node"), images.archived(tag, builder=builder) as archive:
        node.containerd("images", "import", archive)


def _may_make_networks_and_mounts() -> bool:
    [effective] = re.findall(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return all(int(effective, 16) >> number & 1 for number in _CAPABILITIES)


def _start(kubernetes: Path, *, coredns: Path) -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    STATE.mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o700)
    network.make_bridge()
    control_groups.make()
    issued = certificates.make(_CERTIFICATES)
    # The two know nothing of each other until the kubelet comes.
    with ThreadPoolExecutor(max_workers=1) as pool:
        runtime: Future[None] = pool.submit(_start_runtime)
        control_plane.start(kubernetes, certificates=issued)
        runtime.result()
    node.start(kubernetes, certificates=issued, coredns=coredns)
    _wait_for_node(kubernetes / "kubectl")


def _start_runtime() -> None:
    node.start_containerd()
    builder = images.Buildah()
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        files = images.busybox_files(Path(folder))
        builder.from_files(node.PAUSE_IMAGE, files, entrypoint='["/bin/busybox", "sleep", "infinity"]')
    load(node.PAUSE_IMAGE, builder=builder)


def _wait_for_node(kubectl: Path) -> None:
    deadline = time.monotonic() + NODE_READY_SECONDS
    waiting = (kubectl, f"--kubeconfig={KUBECONFIG}", "wait", f"node/{NODE}")
    # `kubectl wait` is told at once when something changes; only what does not run any more must be looked for.
    while not succeeds(*waiting, "--for=condition=Ready", "--timeout=2s"):
        for server in processes.known():
            processes.check_running(server)
        if time.monotonic() > deadline:
            said = run(*waiting[:2], "describe", f"node/{NODE}")
            raise ClusterError(f"the node was not ready after {NODE_READY_SECONDS:.0f} s. Logs: {LOGS}\n{said}")


def _end_order(name: str) -> int:
    return _LAST_TO_END.index(name) + 1 if name in _LAST_TO_END else 0


def _remove_files() -> None:
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and node.POD_LOGS in link.readlink().parents:
            link.unlink()
    for path in STATE.glob("*"):
        if path == LOGS:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if RUN.exists():
        shutil.rmtree(RUN)
    _remove_device_socket()


def _remove_device_socket() -> None:
    """The one place that the kubelet takes no flag for. Another kubelet's, which answers, stays."""
    with socket.socket(socket.AF_UNIX) as probe:
        if not _DEVICE_SOCKET.exists() or probe.connect_ex(str(_DEVICE_SOCKET)) == 0:
            return
    _DEVICE_SOCKET.unlink()
    for folder in (_DEVICE_SOCKET.parent, _DEVICE_SOCKET.parent.parent):
        if not any(folder.iterdir()):
            folder.rmdir()
