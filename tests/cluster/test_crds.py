"""The CRDs on a real API server: it accepts them, and refuses what `llm-sidecar check` refuses, for the same reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.commands import CommandFailed
from tests.cluster.places import ROOT

pytestmark = pytest.mark.needs("cluster")

MANIFESTS = ROOT / "tests" / "contract" / "manifests"
EXPECTATION = re.compile(r"# expect \d+: (?P<field>[^:]+): (?P<message>.*?)(?:\. Fix: .*)?$", re.MULTILINE)

SAID_BY_THE_SERVER = {
    "must be a list": "must be of type array",
    "must be a whole number": "must be of type integer",
    "must be an object": "must be of type object",
    "must have at least": "should have at least",
}
"""What the schema's own words are where `llm-sidecar check` has plainer ones."""


CRDS = sorted((ROOT / "crds").glob("*.yaml"))
PROVIDER: dict[str, Any] = {
    "apiVersion": "llm-sidecar.io/v1alpha1",
    "kind": "LLMProvider",
    "metadata": {"name": "openai"},
    "spec": {"type": "OpenAI", "priority": 5, "models": [{"name": "gpt-5-mini"}]},
}
QUOTA: dict[str, Any] = {
    "apiVersion": "llm-sidecar.io/v1alpha1",
    "kind": "TeamQuota",
    "metadata": {"name": "default"},
    "spec": {"timeZone": "UTC"},
}


def _files(folder: str) -> list[Path]:
    return sorted((MANIFESTS / folder).glob("*.yaml"))


@pytest.fixture(scope="module")
def crds(cluster: Cluster) -> tuple[str, ...]:
    """The names of both CRDs, established."""
    cluster.apply(ROOT / "crds")
    names = ("llmproviders.llm-sidecar.io", "teamquotas.llm-sidecar.io")
    for name in names:
        cluster.wait_for(f"crd/{name}", "condition=Established")
    return names


@pytest.fixture(scope="module")
def team(cluster: Cluster, crds: tuple[str, ...]) -> Iterator[str]:
    """A namespace in which the resources exist."""
    with cluster.namespace("team") as name:
        yield name


def _create(cluster: Cluster, path: Path, *, namespace: str, validate: str = "strict") -> str:
    """Try to create what a file holds, in this namespace instead of its own."""
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    manifest["metadata"]["namespace"] = namespace
    return cluster.text(
        *("create", "--dry-run=server", f"--validate={validate}", "--filename=-"), stdin=yaml.safe_dump(manifest)
    )


def _refusal(cluster: Cluster, path: Path, *, namespace: str, validate: str) -> str:
    with pytest.raises(CommandFailed) as failure:
        _create(cluster, path, namespace=namespace, validate=validate)
    return failure.value.output


@pytest.mark.parametrize("name", ["llmproviders", "teamquotas"])
def test_the_api_server_finds_nothing_to_complain_about(cluster: Cluster, crds: tuple[str, ...], name: str) -> None:
    """A schema that is not structural, or a rule that does not compile, shows as a condition."""
    crd = cluster.kubectl("get", "crd", f"{name}.llm-sidecar.io")

    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("path", _files("accepted"), ids=lambda path: path.stem)
def test_an_accepted_manifest_is_accepted(cluster: Cluster, team: str, path: Path) -> None:
    assert "created" in _create(cluster, path, namespace=team)


@pytest.mark.parametrize("path", _files("refused"), ids=lambda path: path.stem)
def test_a_refused_manifest_is_refused_for_the_reason_that_it_tells(cluster: Cluster, team: str, path: Path) -> None:
    """Unknown fields stop the API server before it looks at the rest: what else is wrong shows when it ignores them."""
    expected = [match.groupdict() for match in EXPECTATION.finditer(path.read_text(encoding="utf-8"))]
    unknown = [one for one in expected if one["message"] == "unknown field"]
    other = [one for one in expected if one not in unknown]
    assert expected

    if unknown:
        said = _refusal(cluster, path, namespace=team, validate="strict")
        for one in unknown:
            assert f'unknown field "{one["field"]}"' in said
    if other:
        said = _refusal(cluster, path, namespace=team, validate="ignore").casefold()
        for one in other:
            assert _as_the_server_says(one["message"]).casefold() in said
            assert any(path.casefold() in said for path in _paths_of_the_server(**one))


@pytest.mark.parametrize("crd", CRDS, ids=lambda path: path.stem)
def test_explain_describes_every_field(cluster: Cluster, team: str, crd: Path) -> None:
    definition = yaml.safe_load(crd.read_text(encoding="utf-8"))["spec"]
    fields = definition["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    said = _words(cluster.text("explain", f"{definition['names']['singular']}.spec"))

    for name, field in fields.items():
        assert re.search(rf" {name} <", said)
        assert _words(field["description"]) in said


@pytest.mark.parametrize("wide", [False, True], ids=["short", "wide"])
@pytest.mark.parametrize("crd", CRDS, ids=lambda path: path.stem)
def test_the_columns_are_a_picture(cluster: Cluster, team: str, crd: Path, wide: bool) -> None:
    """Each by its short name, with the columns that the CRD tells, and values in those that come from the spec."""
    definition = yaml.safe_load(crd.read_text(encoding="utf-8"))["spec"]
    columns = definition["versions"][0]["additionalPrinterColumns"]
    cluster.apply([PROVIDER, QUOTA], namespace=team)

    output = ["--output=wide"] if wide else []
    header, row = cluster.text("get", definition["names"]["shortNames"][0], f"--namespace={team}", *output).splitlines()

    shown = [column["name"].upper() for column in columns if wide or not column.get("priority")]
    assert re.split(r" {2,}", header.strip()) == ["NAME", *shown]
    # A team's columns tell of its usage, which nobody wrote here; those of its spec are shown with -o wide.
    assert re.match(r"openai +OpenAI +5 |default " + (".* UTC +Same" if wide else ""), row)


def _paths_of_the_server(*, field: str, message: str) -> list[str]:
    if message == "Duplicate value":
        # Of objects that are told apart by a field: the server names the object.
        return [field, field.rpartition(".")[0]]
    # A rule on the whole object, such as on its name, is told without a path.
    return [""] if field.startswith("metadata") else [field]


def _as_the_server_says(message: str) -> str:
    for ours, theirs in SAID_BY_THE_SERVER.items():
        if message.startswith(ours):
            return theirs + message.removeprefix(ours)
    # It lists the supported values in quotation marks.
    return message.partition("; supported are")[0]


def _words(text: str) -> str:
    return " ".join(text.split())
