"""The repository itself: what is committed, how it is laid out, what it installs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import llm_sidecar

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("bootstrap", "build", "dev", "operator", "sidecar")

# In pieces, so that this file does not contain what it looks for.
FORBIDDEN: Final = tuple(
    "".join(pieces)
    for pieces in (
        ("py", "pi.org"),
        ("files.python", "hosted.org"),
        ("npm", "js.org"),
        ("npm", "js.com"),
        ("npm", "mirror.com"),
        ("yarn", "pkg.com"),
        ("crates", ".io"),
        ("proxy.go", "lang.org"),
        ("repo1.ma", "ven.org"),
        ("deb.deb", "ian.org"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
        ("/Us", "ers/"),
        ("/wo", "rk/"),
        ("/tm", "p/bash_"),
        ("/opt/", "wheels"),
    )
)
FORBIDDEN_PATTERN: Final = re.compile("|".join(map(re.escape, FORBIDDEN)))


@pytest.fixture(scope="module")
def committed_files() -> list[Path]:
    """Files that git knows, or would add: a mistake should show before it is committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git work tree")
    listing = subprocess.run(
        # CI may run as another user than the one who cloned.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    paths = {ROOT / name for name in listing.stdout.decode().split("\0") if name}
    return sorted(path for path in paths if path.is_file())


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """`pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.needs("git")
def test_no_committed_file_names_a_build_machine_or_a_package_registry(committed_files: list[Path]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in committed_files
        for number, line in enumerate(path.read_bytes().decode(errors="ignore").splitlines(), start=1)
        if (match := FORBIDDEN_PATTERN.search(line))
    ]

    assert found == []


@pytest.mark.needs("git")
@pytest.mark.parametrize("folder", ["operator", "sidecar"])
def test_the_folder_holds_no_loose_module(committed_files: list[Path], folder: str) -> None:
    """`operator/__init__.py` would shadow the standard library's `operator` wherever the root is on the path."""
    assert [path.name for path in committed_files if path.parent == ROOT / folder] == []


@pytest.mark.parametrize("package", ["operator/llm_operator", "sidecar/llm_sidecar"])
def test_the_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("script", ["llm-operator", "llm-sidecar"])
def test_a_console_script_tells_the_one_version(script: str) -> None:
    answer = subprocess.run(
        [Path(sys.executable).parent / script, "--version"], check=True, capture_output=True, text=True
    )

    assert answer.stdout.strip() == f"{script} {llm_sidecar.__version__}"


def test_the_installed_version_is_the_one_in_the_source() -> None:
    """An editable install keeps the version that it was made with: `make setup` again after changing it."""
    assert version("llm-sidecar") == llm_sidecar.__version__


@pytest.mark.parametrize("command", ["controller", "webhook"])
def test_the_operator_names_the_variable_that_it_lacks(command: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "llm_operator", command], check=False, capture_output=True, text=True, env={}
    )

    assert answer.returncode == 2
    assert answer.stdout == ""
    assert re.match(r"llm-operator: LLM_OPERATOR_\w+ is not set. Fix: ", answer.stderr)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_one_version_with_hashes_for_each_requirement(name: str) -> None:
    for block in _blocks(name):
        assert "==" in block, f"requirements/{name}.txt does not pin: {block}"
        assert "--hash=sha256:" in block, f"requirements/{name}.txt has no hash for: {block.splitlines()[0]}"


def test_each_lock_covers_pyproject(project: dict[str, Any]) -> None:
    """Where this fails, `make lock` repairs it."""
    core = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    build = project["build-system"]["requires"] + groups["build"]
    bootstrap = groups["bootstrap"]
    development = [requirement for requirement in groups["dev"] if isinstance(requirement, str)]
    wanted = {
        "bootstrap": bootstrap,
        "build": groups["build"],
        "operator": core + extras["operator"],
        "sidecar": core + extras["sidecar"],
        "dev": core + build + bootstrap + development + [one for extra in extras.values() for one in extra],
    }

    assert {name: _uncovered(wanted[name], _pins(name)) for name in LOCKS} == {name: [] for name in LOCKS}


def test_the_locks_of_the_images_pin_what_is_tested() -> None:
    tested = _pins("dev")

    for name in LOCKS:
        assert _pins(name).items() <= tested.items(), f"requirements/{name}.txt differs from dev.txt: run `make lock`"


def _blocks(name: str) -> list[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]


def _pins(name: str) -> dict[str, str]:
    """Versions by normalised name; where markers select between versions, all of them."""
    versions: dict[str, set[str]] = {}
    for block in _blocks(name):
        requirement = Requirement(block.splitlines()[0].removesuffix("\\"))
        versions.setdefault(_normalised(requirement.name), set()).add(str(requirement.specifier))
    return {package: ",".join(sorted(specifiers)) for package, specifiers in versions.items()}


def _uncovered(requirements: list[str], pins: dict[str, str]) -> list[str]:
    return [text for text in requirements if not _covered(Requirement(text), pins)]


def _covered(requirement: Requirement, pins: dict[str, str]) -> bool:
    pinned = pins.get(_normalised(requirement.name))
    if pinned is None:
        return False
    versions = [Version(specifier.removeprefix("==")) for specifier in pinned.split(",")]
    return all(requirement.specifier.contains(one, prereleases=True) for one in versions)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
