"""Kubernetes' own programs, etcd, CoreDNS and Helm, built from their released Go modules and kept.

Released archives of binaries lie on hosts that not every machine may reach; the modules come through Go's own checked
channel, and `go.sum` pins every byte. The first build takes ten minutes on two cores, later ones a look at a folder.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.commands import run
from tests.cluster.go import go_program
from tests.cluster.places import CACHE
from tests.cluster.stages import stage

TOOLS: Final = Path(__file__).parent / "tools"
BUILD_FLAGS: Final = ("-trimpath", "-buildvcs=false")
BUILD_ENVIRONMENT: Final = {"CGO_ENABLED": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Go module under `tools/`, and the programs that it makes."""

    name: str
    programs: dict[str, str]
    """File name of each, and its package."""

    @property
    def folder(self) -> Path:
        """Where its go.mod and go.sum are."""
        return TOOLS / self.name


def _kubernetes_programs(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


KUBERNETES: Final = Module(
    name="kubernetes",
    programs={
        # In the order of their cost: the first shares most of its packages with the others.
        **_kubernetes_programs(
            "kube-apiserver", "kube-controller-manager", "kubelet", "kubectl", "kube-proxy", "kube-scheduler"
        ),
        "etcd": "go.etcd.io/etcd/server/v3",
    },
)
COREDNS: Final = Module(name="coredns", programs={"coredns": "github.com/coredns/coredns"})
HELM: Final = Module(name="helm", programs={"helm": "helm.sh/helm/v4/cmd/helm"})


def kubernetes_version() -> str:
    """The release that `tools/kubernetes/go.mod` names, such as `v1.34.4`."""
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (KUBERNETES.folder / "go.mod").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def folder_of(module: Module) -> Path:
    """The module's programs, built now unless they are there already."""
    go = go_program()
    folder = CACHE / f"{module.name}-{_key(module, go=go)}"
    for name, package in module.programs.items():
        if not (folder / name).exists():
            _build(module, name=name, package=package, go=go, folder=folder)
    return folder


def program(module: Module, name: str) -> Path:
    """One of a module's programs."""
    return folder_of(module) / name


def _key(module: Module, *, go: Path) -> str:
    """Of all that decides what the binaries are; also of the flags, which carry the version."""
    digest = hashlib.sha256(run(go, "env", "GOVERSION", "GOOS", "GOARCH", environment={"GOWORK": "off"}).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((module.folder / name).read_bytes())
    digest.update(" ".join((*BUILD_FLAGS, _linker_flags(module))).encode())
    return digest.hexdigest()[:16]


def _build(module: Module, *, name: str, package: str, go: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Building {name} (kept in {folder})", flush=True)
    # Built beside its place and moved there: an interrupted build leaves no half a program.
    with stage(f"build {name}"), tempfile.TemporaryDirectory(dir=folder) as unfinished:
        built = Path(unfinished) / name
        run(
            *(go, "build", *BUILD_FLAGS, "-ldflags", _linker_flags(module), "-o", built, package),
            directory=module.folder,
            environment={**BUILD_ENVIRONMENT, "GOWORK": "off"},
        )
        built.replace(folder / name)


def _linker_flags(module: Module) -> str:
    flags = ["-s", "-w"]
    if module is KUBERNETES:
        # Outside its own build the servers would call themselves v0.0.0, which Helm and clients compare with.
        version = kubernetes_version()
        major, minor, _ = version.removeprefix("v").split(".", 2)
        variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items()]
    return " ".join(flags)
