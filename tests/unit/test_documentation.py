"""What the pages say is so: links lead somewhere, no error and no metric is left out, examples are the real files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.metrics import MetricWrapperBase

from llm_sidecar import errors, relay
from llm_sidecar.audit import audit_line
from llm_sidecar.contract.names import ResponseHeader
from llm_sidecar.manifests import assemble, load
from llm_sidecar.metrics import Metrics
from llm_sidecar.record import Attempt, RequestRecord, Skipped

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _headings(target)):
            broken.append(link)

    assert broken == []


def test_every_page_of_docs_is_on_the_map() -> None:
    map_page = ROOT / "docs" / "index.md"
    linked = {(map_page.parent / link).resolve() for link in LINK.findall(map_page.read_text(encoding="utf-8"))}

    assert set((ROOT / "docs").rglob("*.md")) - linked == {map_page}


def _codes(error: type[errors.SidecarError]) -> Iterator[tuple[str, int]]:
    for subclass in error.__subclasses__():
        yield from _codes(subclass)
    if error not in {errors.SidecarError, errors.RequestRefused}:
        yield error.code, error.status


def test_every_error_code_has_its_entry_with_its_status_and_no_other_has() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### (\w+)\n\n(\d{3})?", text, re.MULTILINE)
    codes = {(code, str(status)) for code, status in _codes(errors.SidecarError)}

    assert sorted(entries) == sorted({*codes, (relay.ERROR_CODE, "")})


def _table(page: str, heading: str) -> dict[str, set[str]]:
    """Code names of the second column by those of the first, in the table below a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name: set(re.findall(r"`(\w+)`", row[1])) for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}


def test_every_metric_is_listed_with_its_labels() -> None:
    exposed = {
        f"{metric._name}_total" if metric._type == "counter" else metric._name: set(metric._labelnames)
        for metric in Metrics().registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
    }

    assert _table("configuration.md", "Metrics") == exposed


def test_every_field_of_an_audit_line_is_listed() -> None:
    record = RequestRecord("id", "team", first_content=1.0, error_code="code", sdk_retry_count=1)
    record.attempts.append(Attempt("provider", "answered", 200, 1.0))
    record.skipped.append(Skipped("provider", "model", "reason"))
    record.dropped.append("logprobs")
    record.quota_remaining, record.cost_nano_usd, record.cache_key = "daily=1", 1, "key"
    record.output_clamped_tokens = record.prompt_cache_marks = 1
    record.client_gone = record.interrupted = record.unbounded = True
    record.refused_limit, record.shadow_refused, record.downgraded_from = "daily", ("watched",), "gpt-5"
    written = orjson.loads(audit_line(record, 1.0))

    assert sorted(_table("configuration.md", "The audit log")) == sorted(written)


def test_every_response_header_is_listed() -> None:
    assert set(_table("configuration.md", "Response headers")) == set(ResponseHeader)


def test_the_page_about_adding_a_provider_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "add-a-provider.md").read_text(encoding="utf-8")

    for name in ("acme_llm_sidecar.py", "pyproject.toml"):
        assert (ROOT / "examples" / "custom-provider" / name).read_text(encoding="utf-8") in page


def test_the_page_about_adding_a_provider_shows_how_much_is_shared() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "provider_lines.py"], check=True, capture_output=True, text=True
    ).stdout
    shared = re.search(r"^Shared: ([\d.]+)%, a wire language counted as shared", printed, re.MULTILINE)

    assert shared is not None
    assert float(shared[1]) >= 90


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_manifests_on_a_page_have_no_problem(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    problems = []
    for number, block in enumerate(blocks):
        path = tmp_path / f"block-{number}.yaml"
        path.write_text(block, encoding="utf-8")
        manifests = load([path], known_types={"OpenAI", "Anthropic", "Google"}, environment={"OPENAI_API_KEY": "any"})
        # A page may leave out a Secret that it does not speak of.
        problems += [str(problem) for problem in manifests.errors]

    assert problems == []


def test_the_demos_manifests_can_be_run_as_they_stand() -> None:
    manifests = load([ROOT / "examples" / "demo" / "manifests"], known_types={"OpenAI", "Anthropic", "Google"})

    assert manifests.problems == ()
    assert assemble(manifests, store_url="redis://127.0.0.1:6379").team is not None


def test_the_custom_providers_manifest_has_no_problem_where_its_type_is_known() -> None:
    manifests = load(
        [ROOT / "examples" / "custom-provider" / "acme.yaml"], known_types={"Acme"}, environment={"ACME_API_KEY": "any"}
    )

    assert manifests.problems == ()
