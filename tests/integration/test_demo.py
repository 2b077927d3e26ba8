"""`make demo` tells the truth, ends in order, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.services import DemoFailed, Program
from tests.integration.processes import Lines

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "examples.demo")
SECONDS = 60.0


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where the demo keeps its files; everything that it starts has this in its environment."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:  # pytest's own is too long for a Unix socket
        yield Path(folder)


def _environment(scratch: Path) -> dict[str, str]:
    # A key and a proxy of the user's own must not get in the way.
    strange = {"OPENAI_API_KEY": "sk-mine", "ANTHROPIC_AUTH_TOKEN": "mine", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return {**os.environ, **strange, "http_proxy": "http://127.0.0.1:9", "TMPDIR": str(scratch)}


def _left_behind(scratch: Path) -> list[str]:
    """Files of the demo, and processes that it started."""
    marker = f"TMPDIR={scratch}".encode()
    found = [str(path) for path in scratch.iterdir()]
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in environment.read_bytes():
                found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one run of the demo told."""

    process: subprocess.CompletedProcess[str]
    document: dict[str, Any]
    left_behind: list[str]

    def rows(self, step: str) -> list[dict[str, Any]]:
        """The rows of a step."""
        return [row for row in self.document["rows"] if row["step"] == step]


@pytest.fixture(scope="module")
def told() -> Told:
    """One run for all tests of what it shows."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder, tempfile.TemporaryDirectory() as results:
        written = Path(results) / "deeper" / "demo.json"
        process = subprocess.run(
            [*COMMAND, "--json", written],
            cwd=ROOT,
            env=_environment(Path(folder)),
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return Told(process=process, document=json.loads(written.read_text()), left_behind=_left_behind(Path(folder)))


def test_it_ends_with_nothing_left_and_nothing_to_complain_about(told: Told) -> None:
    assert told.left_behind == []
    assert told.process.stderr == ""
    assert "everything has ended" in told.process.stdout


def test_it_writes_no_colours_where_nobody_sees_them(told: Told) -> None:
    assert "\x1b" not in told.process.stdout


def test_each_sdk_is_answered_by_its_own_provider(told: Told) -> None:
    rows = told.rows("a call")

    assert [(row["sdk"], row["answered_by"], row["status"]) for row in rows] == [
        ("openai", "openai/gpt-5-mini", 200),
        ("anthropic", "anthropic/claude-haiku-4-5", 200),
        ("google", "google/gemini-2.5-flash", 200),
    ]
    assert all(row["tokens"] > 0 for row in rows)
    assert [row["quota_left"] for row in rows] == ["calls=9", "calls=8", "calls=7"]


def test_claude_answers_the_openai_sdk(told: Told) -> None:
    [row] = told.rows("another provider's")

    assert (row["sdk"], row["answered_by"], row["status"]) == ("openai", "anthropic/claude-haiku-4-5", 200)
    assert row["tokens"] > 0


def test_the_stream_is_counted(told: Told) -> None:
    [row] = told.rows("a stream")

    assert row["tokens"] > 0
    assert row["note"].partition(" pieces")[0].isdigit()


def test_the_repeated_call_costs_nothing(told: Told) -> None:
    [row] = told.rows("the first call again")

    assert (row["cache"], row["tokens"], row["attempts"]) == ("hit", 0, 0)


def test_the_failing_provider_is_replaced(told: Told) -> None:
    [row] = told.rows("a provider is down")

    assert (row["answered_by"], row["attempts"], row["status"]) == ("openai/gpt-5", 2, 200)
    assert "openai-down answered 503" in row["note"]


def test_the_broken_stream_raises_in_the_sdk(told: Told) -> None:
    [row] = told.rows("a stream breaks off")
    [audit] = [line for line in told.document["audit"] if line["request_id"] == row["request_id"]]

    assert "it raises APIError" in row["note"]
    assert audit["interrupted"] is True


def test_every_sdk_is_refused_over_quota(told: Told) -> None:
    rows = told.rows("over quota")

    assert [(row["sdk"], row["answered_by"], row["tokens"]) for row in rows] == [
        (sdk, "429 team_quota_exceeded", 0) for sdk in ("openai", "anthropic", "google")
    ]
    assert "10 requests used and 0 reserved of 10 per day" in rows[0]["note"]
    assert "retry-after: " in rows[0]["note"]


def test_the_edited_limit_lets_calls_through_again(told: Told) -> None:
    [row] = told.rows("the limit is raised")

    assert row["status"] == 200
    assert row["quota_left"] == "calls=989"


def test_ctrl_c_ends_what_was_left_running(scratch: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--stay"],
        cwd=ROOT,
        env={**_environment(scratch), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = Lines(process.stdout), Lines(process.stderr)
    try:
        output.wait_for(lambda line: line.startswith("Ctrl-C ends it"), timeout_seconds=SECONDS)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()

    assert (code, errors.drain()) == (0, [])
    assert "Done in" in output.drain()[-1]
    assert _left_behind(scratch) == []


def test_ctrl_c_in_the_middle_ends_everything(scratch: Path) -> None:
    process = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env={**_environment(scratch), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = Lines(process.stdout), Lines(process.stderr)
    try:
        output.wait_for(lambda line: line.startswith("a call"), timeout_seconds=SECONDS)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()

    assert (code, errors.drain()) == (130, ["demo: stopped; everything has ended"])
    assert _left_behind(scratch) == []


def test_a_program_that_does_not_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    program = Program("proxy", ["run", "-f", str(tmp_path / "nothing.yaml")], tmp_path)

    with pytest.raises(DemoFailed, match=r"proxy ended with code 1: .*nothing\.yaml"):
        program.wait_for("listens", program.errors)

    assert program.stop() == 1
