"""`llm-sidecar check` as its user meets it: lines, summary, exit status."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from llm_sidecar.commands import check

GOOD = """apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: a}
spec:
  type: OpenAI
  models: [{name: m}]
"""
BAD = GOOD.replace("type: OpenAI", "type: OpenAI\n  priority: -1\n  wieght: 2")
WARNED = GOOD + "  credentials: {secretKeyRef: {name: s, key: k}}\n"


def _run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["check", *map(str, words)])
    return check.run(arguments, known_types={"OpenAI"})


def _file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_good_manifests_end_with_0_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("-f", _file(tmp_path, "a.yaml", GOOD)) == 0
    assert capsys.readouterr() == ("", "1 LLMProvider, 0 TeamQuotas, 0 Secrets: 0 problems\n")


def test_problems_end_with_1_and_name_file_line_field_and_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, "a.yaml", BAD)

    assert _run("-f", path) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:6: spec.priority: should be greater than or equal to 0. Fix: use a larger number",
        f"{path}:7: spec.wieght: unknown field. Fix: did you mean weight?",
        "0 LLMProviders, 0 TeamQuotas, 0 Secrets: 2 problems",
    ]


def test_a_warning_alone_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("-f", _file(tmp_path, "a.yaml", WARNED)) == 0
    assert capsys.readouterr().err.endswith("0 problems, 1 warning\n")


def test_files_may_be_named_in_several_ways_and_problems_come_in_order_of_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _file(tmp_path, "a.yaml", BAD), _file(tmp_path, "b.yaml", BAD.replace("name: a", "name: b"))

    assert _run("-f", second, first) == 1
    once = capsys.readouterr().err
    assert _run("-f", second, "-f", first) == 1
    assert capsys.readouterr().err == once
    assert [line.split(":")[0] for line in once.splitlines()[:-1]] == [str(first)] * 2 + [str(second)] * 2


def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("-f", tmp_path / "none.yaml") == 2
    error = capsys.readouterr().err
    assert "none.yaml: cannot be read" in error
    assert "Fix: " in error


def test_no_file_at_all_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _run()
    assert caught.value.code == 2
    assert "-f" in capsys.readouterr().err


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, "a.yaml", BAD + "---\n" + GOOD.replace("name: a", "name: c"))

    assert _run("-f", path, "--output", "json") == 1
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert output.err == ""
    assert report["ok"] is False
    assert report["providers"] == ["default/c"]
    assert report["problems"][0] == {
        "file": str(path),
        "line": 6,
        "field": "spec.priority",
        "message": "should be greater than or equal to 0",
        "fix": "use a larger number",
        "severity": "error",
    }


def test_the_registered_types_are_known_by_default(tmp_path: Path) -> None:
    arguments = argparse.Namespace(paths=[_file(tmp_path, "a.yaml", GOOD)], output="text")
    assert check.run(arguments) == 0
