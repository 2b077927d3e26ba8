"""Every file under `manifests/`, as `llm-sidecar check` and the CRD see it. To add a case, add a file.

A refused file begins with what must be said about it, one line each: `# expect LINE: FIELD: BEGINNING OF THE MESSAGE`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_sidecar.manifests import load

MANIFESTS = Path(__file__).parent / "manifests"
KNOWN_TYPES = {"OpenAI", "Anthropic", "Google", "Custom2"}
EXPECTATION = "# expect "


def _files(folder: str) -> list[Path]:
    return sorted((MANIFESTS / folder).glob("*.yaml"))


@pytest.mark.parametrize("path", _files("accepted"), ids=lambda path: path.stem)
def test_an_accepted_manifest_has_no_errors(path: Path) -> None:
    manifests = load([path], known_types=KNOWN_TYPES, environment={})

    assert manifests.errors == ()
    assert len(manifests.providers) + len(manifests.team_quotas) == 1


@pytest.mark.parametrize("path", _files("refused"), ids=lambda path: path.stem)
def test_a_refused_manifest_is_refused_at_the_line_and_for_the_reason_that_it_tells(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = [line.removeprefix(EXPECTATION) for line in lines if line.startswith(EXPECTATION)]

    errors = load([path], known_types=KNOWN_TYPES, environment={}).errors

    said = [str(error).removeprefix(f"{path}:") for error in errors]
    assert expected
    assert len(said) == len(expected), said
    for text in expected:
        assert any(line.startswith(text) for line in said), (text, said)


@pytest.mark.parametrize("path", _files("refused"), ids=lambda path: path.stem)
def test_every_refusal_says_what_to_do_and_quotes_no_secret(path: Path) -> None:
    for error in load([path], known_types=KNOWN_TYPES, environment={}).errors:
        assert error.fix
        assert "secret@" not in str(error)
