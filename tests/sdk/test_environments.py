"""The matrix holds what it promises, and making its environments survives parallel and interrupted runs."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sdk.environments import PYTHON_DIRECTORY, TYPESCRIPT_DIRECTORY, installed, sdk_environments

MAJORS = {"openai": {1, 2, 3}, "anthropic": {0, 1, 2}, "google-genai": {1, 2, 3}}
REQUIREMENT = re.compile(r"^[a-z0-9][a-z0-9._-]*==\S+(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^ {4}--hash=sha256:[0-9a-f]{64}(?: \\)?$")


def test_there_is_an_environment_for_each_major_of_each_sdk() -> None:
    python = {environment.name for environment in sdk_environments() if environment.language == "python"}

    assert python == {f"{package}-{major}" for package, majors in MAJORS.items() for major in majors}


@pytest.mark.parametrize("lock", sorted(PYTHON_DIRECTORY.glob("*.txt")), ids=lambda lock: lock.stem)
def test_a_lock_holds_the_major_that_it_is_named_after_with_hashes_and_no_host_names(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    package, _, major = lock.stem.rpartition("-")

    assert any(line.startswith(f"{package}=={major}.") for line in lines)
    assert [line for line in lines if not (REQUIREMENT.match(line) or HASH.match(line))] == []


def test_the_typescript_lock_says_what_to_install_and_not_from_where() -> None:
    lock = (TYPESCRIPT_DIRECTORY / "package-lock.json").read_text()

    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 3


def test_one_of_many_installs_and_the_others_wait_for_it(tmp_path: Path) -> None:
    installations: list[Path] = []
    at_once = threading.Barrier(4)

    def install(directory: Path) -> None:
        directory.mkdir()
        installations.append(directory)

    def ask(_number: int) -> Path:
        at_once.wait()
        return installed(tmp_path / "environment", install)

    with ThreadPoolExecutor(4) as pool:
        directories = set(pool.map(ask, range(4)))

    assert installations == [tmp_path / "environment"]
    assert directories == {tmp_path / "environment"}


def test_a_half_made_environment_is_made_again(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        directory.mkdir()
        (directory / "half").touch()
        raise OSError("no space left")

    def install(directory: Path) -> None:
        directory.mkdir()

    with pytest.raises(OSError, match="no space left"):
        installed(tmp_path / "environment", fail)
    directory = installed(tmp_path / "environment", install)

    assert not (directory / "half").exists()
