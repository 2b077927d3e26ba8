"""`llm-sidecar explain` as its user meets it: who would be asked, without a call and without a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_sidecar.__main__ import main

MANIFESTS = """apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: openai, namespace: llm-system}
spec:
  type: OpenAI
  credentials: {secretKeyRef: {name: openai, key: api-key}}
  models:
  - name: gpt
    aliases: [small]
    contextWindowTokens: 2000
    pricing: {inputUSDPerMillionTokens: "5.00", outputUSDPerMillionTokens: "10.00"}
  - {name: text-embedding}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: anthropic, namespace: llm-system}
spec:
  type: Anthropic
  models:
  - name: claude
    aliases: [small]
    pricing: {inputUSDPerMillionTokens: "1.00", outputUSDPerMillionTokens: "2.00"}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: google, namespace: llm-system}
spec:
  type: Google
  priority: 3
  models:
  - {name: gemini, failoverFor: [small]}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {name: payments, namespace: payments}
spec:
  routing: Cheapest
  models: {deny: [secret]}
  limits:
  - {name: daily, per: Day, requests: 10}
---
apiVersion: llm-sidecar.io/v1alpha1
kind: TeamQuota
metadata: {name: search, namespace: search}
spec:
  providers: [llm-system/openai]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "manifests.yaml"
    path.write_text(MANIFESTS, encoding="utf-8")
    return path


def explained(capsys: pytest.CaptureFixture[str], path: Path, *words: str, team: str = "payments") -> dict[str, Any]:
    main(["explain", "-f", str(path), "--team", team, "--output", "json", *words])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_candidates_are_told_in_order_with_all_that_decides_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, path, "--model", "small")

    assert (told["model"], told["api"], told["team"], told["refused"]) == (
        "small",
        "OpenAIChat",
        "payments/payments",
        "",
    )
    ways = [
        (way["provider"], way["type"], way["model"], way["api"], way["translated"], way["standsIn"], way["priority"])
        for way in told["candidates"]
    ]
    assert ways == [
        ("anthropic", "Anthropic", "claude", "AnthropicMessages", True, False, 0),
        ("openai", "OpenAI", "gpt", "OpenAIChat", False, False, 0),
        ("google", "Google", "gemini", "Gemini", True, True, 3),
    ]
    assert told["candidates"][0]["pricing"] == {
        "inputUSDPerMillionTokens": "1.00",
        "outputUSDPerMillionTokens": "2.00",
    }
    assert [way["contextWindowTokens"] for way in told["candidates"]] == [None, 2000, None]


def test_the_api_that_is_spoken_decides_what_is_translated(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, path, "--model", "small", "--api", "AnthropicMessages")

    assert {way["provider"]: way["translated"] for way in told["candidates"]} == {
        "anthropic": False,
        "openai": True,
        "google": True,
    }


def test_embeddings_go_only_where_embeddings_are_made(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, path, "--model", "small", "--api", "Gemini", "--embeddings")

    assert [way["api"] for way in told["candidates"]] == ["OpenAIEmbeddings", "Gemini"]


def test_who_would_be_skipped_is_told_with_the_reason(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, path, "--model", "small", "--input-tokens", "3000")

    skipped = {way["provider"]: way["skipped"] for way in told["candidates"] if way["skipped"]}
    assert list(skipped) == ["openai"]
    assert "context window of 2000 tokens is too small" in skipped["openai"]


def test_a_team_is_told_its_own_candidates_only(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, path, "--model", "small", team="search")

    assert [way["provider"] for way in told["candidates"]] == ["openai"]


def test_the_table_tells_order_language_prices_and_notes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", "-f", str(path), "--team", "payments", "--model", "small", "--input-tokens", "3000"]

    assert main(words) == 0

    title, _, header, *rows, _, note = capsys.readouterr().out.splitlines()
    assert title == "small in OpenAIChat, team payments/payments:"
    assert header.split()[:5] == ["order", "provider", "model", "sent", "language"]
    assert [row.split()[:3] for row in rows] == [
        ["1", "anthropic", "claude"],
        ["-", "openai", "gpt"],
        ["2", "google", "gemini"],
    ]
    assert "AnthropicMessages (translated)" in rows[0]
    assert "1.00 in, 2.00 out" in rows[0]
    assert "skipped: its context window" in rows[1]
    assert rows[2].endswith("stands in")
    assert "the cheapest" in note


def test_equals_that_share_by_weight_are_said_to(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "-f", str(path), "--team", "payments", "--model", "small"]) == 0
    assert "drawn anew" not in capsys.readouterr().out  # their prices decide

    path.write_text(MANIFESTS.replace("routing: Cheapest", "routing: Weighted"), encoding="utf-8")
    assert main(["explain", "-f", str(path), "--team", "payments", "--model", "small"]) == 0
    assert "drawn anew" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "reason"), [("unknown", "no provider serves"), ("secret", "may not use")])
def test_where_nobody_would_be_asked_it_says_why_and_ends_with_1(
    path: Path, capsys: pytest.CaptureFixture[str], model: str, reason: str
) -> None:
    assert main(["explain", "-f", str(path), "--team", "payments", "--model", model]) == 1
    assert reason in capsys.readouterr().out
    assert reason in explained(capsys, path, "--model", model)["refused"]


def test_manifests_that_cannot_be_used_end_with_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "-f", str(path.with_name("none.yaml")), "--model", "m"]) == 2
    assert "none.yaml: cannot be read" in capsys.readouterr().err

    assert main(["explain", "-f", str(path), "--model", "m"]) == 2
    assert "which team to run as is not clear" in capsys.readouterr().err

    path.write_text(MANIFESTS.replace("priority: 3", "priority: -3"), encoding="utf-8")
    assert main(["explain", "-f", str(path), "--team", "payments", "--model", "m"]) == 2
    assert "spec.priority" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "x"])
def test_a_size_that_is_no_number_of_tokens_is_a_usage_error(
    path: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "-f", str(path), "--model", "m", "--input-tokens", number])
    assert "--input-tokens" in capsys.readouterr().err
