"""`llm-sidecar cache purge` as a user meets it, beside a proxy that was really called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.conftest import StartSidecar
from tests.integration.processes import DEFECTS, Sidecar

SECONDS: Final = 60.0
CHAT: Final = {"model": "gpt-5-mini", "temperature": 0, "messages": [{"role": "user", "content": "ping"}]}
DIGEST: Final = "0" * 64


def cache(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("llm-sidecar")), "cache", *words],
        env={**os.environ, "KUBECONFIG": "/nowhere"},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not any(word in done.stderr for word in DEFECTS), done.stderr
    return done.returncode, done.stdout, done.stderr


def chat(sidecar: Sidecar) -> str:
    """What the cache did for one call."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{sidecar.base_url}/v1/chat/completions",
        data=json.dumps(CHAT).encode(),
        headers={"Authorization": f"Bearer {sidecar.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310 - loopback
        told: str = reply.headers["x-llm-sidecar-cache"]
    return told


def until(told: str, sidecar: Sidecar) -> None:
    deadline = time.monotonic() + 10
    while chat(sidecar) != told:
        assert time.monotonic() < deadline, f"never a {told}"


@pytest.mark.parametrize("words", [(), ("--provider", "default/openai"), ("--older-than", "0s")], ids=str)
def test_a_purge_is_heard_of_by_a_running_proxy(
    start_sidecar: StartSidecar, simulated_manifests: Callable[..., str], store_url: str, words: tuple[str, ...]
) -> None:
    sidecar = start_sidecar(simulated_manifests())
    until("hit", sidecar)
    time_of_purge = ("--team", "default/default", "--redis", store_url)
    status, said, complained = cache("purge", *time_of_purge, *words)
    assert (status, complained) == (0, "")
    assert said.startswith("default/default: purged ")
    until("miss", sidecar)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--team"),
        (("--team", "payments"), "NAMESPACE/NAME"),
        (("--team", "a/b", "--model", "m"), "--provider"),
        (("--team", "a/b", "--provider", "p"), "NAMESPACE/NAME"),
        (("--team", "a/b", "--key", "x"), "cache_key"),
        (("--team", "a/b", "--older-than", "soon"), "15m"),
        (("--team", "a/b", "--key", DIGEST, "--older-than", "1h"), "cannot be combined"),
        (("--team", "a/b", "--redis", "redis://127.0.0.1:1"), "cannot be asked"),
        (("--team", "a/b", "--redis", "http://x"), "--redis"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_with_the_way_out(words: tuple[str, ...], told: str) -> None:
    status, said, complained = cache("purge", *words)
    assert (status, said) == (2, "")
    assert told in complained


def test_teams_may_be_several_and_teamless_pods_are_one(store_url: str) -> None:
    words: Any = ("purge", "--redis", store_url, "--team", "a/b", "--team", "none", "--key", DIGEST)
    status, said, _ = cache(*words)
    assert (status, len(said.splitlines())) == (0, 2)
