"""Images from the very Dockerfiles that ship, built by Docker where it runs and by buildah elsewhere.

An image's tag is a hash of all that goes into it: what was built once is not built again, and a pod with `IfNotPresent`
never runs an older one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tests.cluster.commands import CommandFailed, run, succeeds
from tests.cluster.places import BUILDAH_RUN, CACHE, ROOT
from tests.cluster.stages import stage

SOURCES: Final = ("LICENSE", "README.md", "operator", "pyproject.toml", "requirements", "sidecar")
"""What `.dockerignore` lets into a build."""

IMAGES: Final = ("sidecar", "operator")
"""Folders of `images/`."""

DEBIAN_BASE: Final = "localhost/python:3.11-slim"
"""Stands in for `python:3.13-slim` where no registry of images can be reached: Debian's Python, from packages."""

_DEBIAN_SUITE: Final = "bookworm"
_DEBIAN_PACKAGES: Final = "ca-certificates,python3,python3-pip,python3-venv"
_NOT_IN_BASE: Final = ("./dev/*", "./proc/*", "./sys/*", "./usr/share/doc/*", "./usr/share/man/*", "./var/cache/apt/*")
_IMAGES_KEPT: Final = 80
"""In buildah's store, layers of build stages included; a build makes about twenty. Beyond it all but the base goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The project's two images by the names that the nodes know them by."""

    sidecar: str
    operator: str


class Builder(Protocol):
    """A program that makes images."""

    @property
    def base(self) -> str:
        """What the Dockerfiles' `BASE` is set to; it also serves tests as a place for any program."""

    def build(self, dockerfile: Path, *, tag: str) -> None:
        """Make the image, unless there is one by that tag."""

    def save(self, tag: str, archive: Path) -> None:
        """Write the image to a file that a node can import."""


class Docker:
    """A Docker engine."""

    base: Final = "python:3.13-slim"

    def build(self, dockerfile: Path, *, tag: str) -> None:
        if not succeeds("docker", "image", "inspect", tag):
            run("docker", "build", "--file", dockerfile, "--tag", tag, ROOT)

    def save(self, tag: str, archive: Path) -> None:
        if not succeeds("docker", "image", "inspect", tag):
            run("docker", "pull", "--quiet", tag)
        run("docker", "save", "--output", archive, tag)


class Buildah:
    """buildah with a store of its own; as root, without any engine."""

    base: Final = DEBIAN_BASE

    def build(self, dockerfile: Path, *, tag: str) -> None:
        if self._has(tag):
            return
        self._make_room()
        if not self._has(self.base):
            self._make_base()
        self._run(
            *(
                "bud",
                "--layers",
                "--force-rm",
                "--network",
                "host",
                "--file",
                dockerfile,
                "--build-arg",
                f"BASE={self.base}",
            ),
            # The machine's own authorities: a company's proxy may stand between it and the packages.
            *("--volume", "/etc/ssl/certs:/etc/ssl/certs:ro", "--tag", tag, ROOT),
        )

    def save(self, tag: str, archive: Path) -> None:
        if tag == self.base and not self._has(tag):
            self._make_base()
        # In Docker's form, which holds layers as they are: an OCI archive's are compressed first, which takes longer
        # than everything else together.
        self._run("push", "--quiet", tag, f"docker-archive:{archive}:{tag}")

    def from_files(self, tag: str, files: Path, *, entrypoint: str) -> None:
        """An image that holds a folder's files and nothing else, unless there is one by that tag."""
        if self._has(tag):
            return
        container = self._run("from", "scratch").strip()
        try:
            self._run("add", "--quiet", container, files, "/")
            self._run("config", "--entrypoint", entrypoint, container)
            self._run("commit", "--quiet", container, tag)
        finally:
            self._run("rm", container)

    def forget_interrupted(self) -> None:
        """Remove the containers of builds that were cut short, and what they have mounted."""
        if (CACHE / "buildah").exists():
            self._run("rm", "--all")

    def _make_base(self) -> None:
        print(f"Making {self.base} from Debian's packages (kept in {CACHE})", flush=True)
        with stage("base image"), tempfile.TemporaryDirectory(dir=CACHE) as folder:
            system, archive = Path(folder) / "system", Path(folder) / "files" / "base.tar"
            archive.parent.mkdir()
            run("debootstrap", "--variant=minbase", f"--include={_DEBIAN_PACKAGES}", _DEBIAN_SUITE, system)
            excluded = [f"--exclude={pattern}" for pattern in _NOT_IN_BASE]
            # As an archive: what is added from a folder would all belong to root.
            run("tar", "--create", "--file", archive, *excluded, "--directory", system, ".")
            self.from_files(self.base, archive, entrypoint="[]")

    def _make_room(self) -> None:
        if len(self._run("images", "--all", "--quiet").split()) <= _IMAGES_KEPT:
            return
        for name in self._run("images", "--format", "{{.Name}}:{{.Tag}}").split():
            if name.startswith("localhost/llm-"):
                self._run("rmi", "--force", name)
        self._run("rmi", "--prune", "--force")

    def _has(self, tag: str) -> bool:
        try:
            self._run("inspect", "--type", "image", tag)
        except CommandFailed:
            return False
        return True

    def _run(self, *arguments: str | Path) -> str:
        return run(
            *("buildah", "--root", CACHE / "buildah", "--runroot", BUILDAH_RUN, *arguments),
            environment={"BUILDAH_ISOLATION": "chroot"},
        )


def reference(name: str, *, base: str) -> str:
    """An image's name with the hash of what goes into it as its tag."""
    digest = hashlib.sha256(base.encode())
    for path in (ROOT / "images" / name / "Dockerfile", ROOT / ".dockerignore", *_source_files()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode())
        digest.update(content)
    return f"localhost/llm-{name}:{digest.hexdigest()[:12]}"


def build(name: str, *, builder: Builder) -> str:
    """Build one of the project's images, unless it is there already; returns its reference."""
    tag = reference(name, base=builder.base)
    with stage(f"image {name}"):
        builder.build(ROOT / "images" / name / "Dockerfile", tag=tag)
    return tag


@contextmanager
def archived(tag: str, *, builder: Builder) -> Iterator[Path]:
    """The image as a file, for as long as it takes to import it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        archive = Path(folder) / "image.tar"
        builder.save(tag, archive)
        yield archive


def busybox_files(folder: Path) -> Path:
    """A folder with one program in it, for the image that holds a pod's namespaces open."""
    program = shutil.which("busybox")
    assert program is not None
    (folder / "bin").mkdir()
    shutil.copy(program, folder / "bin" / "busybox")
    return folder


def _source_files() -> Iterator[Path]:
    for source in SOURCES:
        path = ROOT / source
        if path.is_file():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            yield from (Path(folder) / name for name in sorted(names))
