"""Which Go builds the cluster's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import go, places
from tests.cluster.commands import run


@pytest.fixture(autouse=True)
def _no_go_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(go, "_USUAL_PLACE", tmp_path / "nowhere")


def _install(folder: Path, says: str) -> Path:
    program = folder / "go"
    program.write_text(f"#!/bin/sh\n{says}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("version", ["go1.26.0", "go1.26", "go1.30.2", "go2.0"])
def test_a_go_that_is_new_enough_is_taken(tmp_path: Path, version: str) -> None:
    program = _install(tmp_path, f"echo go version {version} linux/amd64")

    assert go.installed() == program


@pytest.mark.parametrize("says", ["echo go version go1.19.8 linux/amd64", "echo hello", "exit 3"])
def test_an_old_or_broken_go_is_not_taken(tmp_path: Path, says: str) -> None:
    _install(tmp_path, says)

    assert go.installed() is None


def test_behind_an_old_go_the_usual_place_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "echo go version go1.19.8 linux/amd64")
    (tmp_path / "new").mkdir()
    newer = _install(tmp_path / "new", "echo go version go1.26.1 linux/amd64")
    monkeypatch.setattr(go, "_USUAL_PLACE", newer)

    assert go.installed() == newer


@pytest.mark.needs("cluster")
def test_without_a_go_the_pinned_one_is_fetched_and_builds(tmp_path: Path) -> None:
    """It is kept with the cluster's programs: only the first run fetches it."""
    (tmp_path / "go.mod").write_text("module hello\n\ngo 1.26\n", encoding="utf-8")
    (tmp_path / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n', encoding="utf-8")

    fetched = go.go_program.__wrapped__()
    run(fetched, "build", "-o", "hello", ".", directory=tmp_path, environment={"CGO_ENABLED": "0", "GOWORK": "off"})

    assert fetched.is_relative_to(places.CACHE)
    assert run("sh", "-c", "./hello 2>&1", directory=tmp_path) == "hello\n"
