"""What the one-node cluster takes from the distribution, installed when missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.cluster.commands import ClusterUnavailable, run

PACKAGES: Final = {
    "buildah": "buildah",
    "busybox": "busybox-static",
    "containerd": "containerd",
    "conntrack": "conntrack",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Program, and the Debian package that brings it."""


def why_not() -> str | None:
    """Why what is missing can't be installed here; None: nothing is missing, or it can."""
    missing = _missing()
    if not missing or shutil.which("apt-get"):
        return None
    return f"the one-node cluster needs {', '.join(missing)}, and this is no Debian: install them, or use kind"


def install_missing() -> None:
    """Install what is not there yet. Nothing is asked of the network where all of it is."""
    missing = _missing()
    if not missing:
        return
    reason = why_not()
    if reason is not None:
        raise ClusterUnavailable(reason)
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", environment=environment)
    # Packages that bring services would start them: a second containerd is not wanted.
    run(
        *("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing),
        environment={**environment, "RUNLEVEL": "1"},
    )


def _missing() -> list[str]:
    return sorted({package for program, package in PACKAGES.items() if not _is_there(program)})


def _is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None
