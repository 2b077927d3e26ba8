"""Where the SDK matrix lives: one small, locked environment per SDK and major, made once and kept under `build/`.

The project's own environment holds one release of each SDK; applications hold older ones, each with its own HTTP
client underneath. An environment's directory is named after its lock file's content, so a changed lock makes a new
one and never a stale one, and a killed installation is made again, never used half.

To move to other releases, edit `python/NAME.in`, then, in that folder:
`uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
NAME.in -o NAME.txt`. For TypeScript: `npm install --save-exact PACKAGE@VERSION` in `typescript/`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

SDK_DIRECTORY: Final = Path(__file__).parent
PYTHON_DIRECTORY: Final = SDK_DIRECTORY / "python"
TYPESCRIPT_DIRECTORY: Final = SDK_DIRECTORY / "typescript"
CHECKOUT: Final = SDK_DIRECTORY.parents[1]
INSTALLATIONS: Final = CHECKOUT / "build" / "sdk-environments"
MINIMUM_NODE_MAJOR: Final = 20
INSTALLATION_SECONDS: Final = 300


class EnvironmentUnavailable(Exception):
    """This machine lacks what the environment needs (Node); the message is the reason to skip."""


@dataclass(frozen=True, slots=True)
class SDKEnvironment:
    """One SDK in one release, and the program that uses it."""

    name: str
    """`openai-1`: the lock's name."""
    program: str
    """`openai`, `anthropic` or `google`: whose API the program speaks."""
    locks: tuple[Path, ...]

    @property
    def language(self) -> str:
        """`python` or `typescript`."""
        return "typescript" if self.name == "typescript" else "python"

    @property
    def directory(self) -> Path:
        """Where it is, or will be, installed."""
        digest = sha256(b"\0".join(lock.read_bytes() for lock in self.locks))
        # A virtual environment points at the interpreter that made it.
        digest.update(os.fsencode(sys.base_prefix))
        return INSTALLATIONS / f"{self.name}-{digest.hexdigest()[:16]}"

    def command(self) -> tuple[str, ...]:
        """The command that runs the program (in `CHECKOUT`), installing the environment first where it is missing."""
        if self.language == "typescript":
            return _typescript_command(self)
        python = installed(self.directory, self._install_python) / "bin" / "python"
        return (str(python), "-m", f"tests.sdk.python.{self.program}_program")

    def _install_python(self, directory: Path) -> None:
        _run(_uv(), "venv", "--quiet", "--python", sys.executable, str(directory))
        _run(
            *(_uv(), "pip", "install", "--quiet", "--require-hashes", "--python", str(directory / "bin" / "python")),
            *("--requirements", str(self.locks[0])),
        )


@cache
def sdk_environments() -> tuple[SDKEnvironment, ...]:
    """All of them: every Python lock, and the TypeScript environment once per API."""
    locks = sorted(PYTHON_DIRECTORY.glob("*.txt"))
    python = [SDKEnvironment(lock.stem, lock.stem.rpartition("-")[0].removesuffix("-genai"), (lock,)) for lock in locks]
    npm_locks = (TYPESCRIPT_DIRECTORY / "package.json", TYPESCRIPT_DIRECTORY / "package-lock.json")
    typescript = [SDKEnvironment("typescript", program, npm_locks) for program in ("openai", "anthropic", "google")]
    return (*python, *typescript)


def _typescript_command(environment: SDKEnvironment) -> tuple[str, ...]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise EnvironmentUnavailable("node and npm are needed for the TypeScript SDKs and are not on the PATH")
    version = _run(node, "--version").strip()
    if int(version.removeprefix("v").partition(".")[0]) < MINIMUM_NODE_MAJOR:
        raise EnvironmentUnavailable(f"the TypeScript SDKs need node {MINIMUM_NODE_MAJOR}; this is {version}")

    def install(directory: Path) -> None:
        directory.mkdir(parents=True)
        for lock in environment.locks:
            shutil.copy(lock, directory)
        # Install scripts of packages are other people's code with our rights, and none of these needs its own.
        _run(npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory))

    directory = installed(environment.directory, install)
    # Node looks for packages beside the script that imports them, so the scripts go where the packages are.
    for script in TYPESCRIPT_DIRECTORY.glob("*.mjs"):
        _replace(directory / script.name, script.read_bytes())
    return (node, str(directory / f"{environment.program}_program.mjs"))


def installed(directory: Path, install: Callable[[Path], None]) -> Path:
    """The directory, complete: made by one process while others wait, in a place of its own until it is whole."""
    complete = directory / ".complete"
    with _locked(directory.with_suffix(".lock")):
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            install(directory)
            complete.touch()
    return directory


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    """Write so that a reader sees the old content or the new, never a half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _uv() -> str:
    beside_python = Path(sys.executable).with_name("uv")
    found = str(beside_python) if beside_python.exists() else shutil.which("uv")
    if found is None:
        raise EnvironmentUnavailable("uv is needed to make the SDK environments: install the development dependencies")
    return found


def _run(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALLATION_SECONDS, env=environment, check=False
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def main() -> None:
    """Install everything ahead of the tests (`python -m tests.sdk.environments`)."""
    for environment in sdk_environments():
        try:
            environment.command()
        except EnvironmentUnavailable as unavailable:
            print(f"{environment.name} ({environment.program}): skipped: {unavailable}")
        else:
            print(f"{environment.name} ({environment.program}): {environment.directory}")


if __name__ == "__main__":
    main()
