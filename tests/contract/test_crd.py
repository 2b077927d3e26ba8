"""The generated CRDs: up to date, structural, bounded, and of one mind with the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_sidecar.contract import crd
from llm_sidecar.contract.resources import LLMProviderSpec, TeamQuotaSpec
from llm_sidecar.contract.rules import VALIDATIONS

CRDS = Path(__file__).parents[2] / "crds"


def _schema(definition: crd.Definition) -> dict[str, Any]:
    document = yaml.safe_load(crd.render(definition))
    (version,) = document["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from _nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _nodes(schema["additionalProperties"], f"{path}[]")


def _with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What the API server stores: defaults filled in from the top down."""
    if schema["type"] == "object":
        properties = schema.get("properties", {})
        filled = {name: child["default"] for name, child in properties.items() if "default" in child} | value
        return {name: _with_defaults(properties[name], item) for name, item in filled.items()}
    if schema["type"] == "array":
        return [_with_defaults(schema["items"], item) for item in value]
    return value


every_definition = pytest.mark.parametrize("definition", crd.DEFINITIONS, ids=lambda definition: definition.plural)


def test_the_committed_files_are_what_the_models_say() -> None:
    assert crd.stale_files(CRDS) == [], "run: python -m llm_sidecar.contract.crd --write crds"


def test_the_generator_names_a_stale_file_and_repairs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--check", str(tmp_path)]) == 1
    assert "llmproviders.llm-sidecar.io.yaml is not up to date" in capsys.readouterr().err

    assert crd.main(["--write", str(tmp_path / "new")]) == 0
    assert crd.main(["--check", str(tmp_path / "new")]) == 0


@every_definition
def test_every_value_is_bounded(definition: crd.Definition) -> None:
    """Without bounds the API server takes a CEL rule for too expensive."""
    for path, node in _nodes(_schema(definition)["properties"]["spec"]):
        match node["type"]:
            case "string":
                assert "enum" in node or "maxLength" in node, path
            case "array":
                assert "maxItems" in node, path
            case "integer":
                assert {"minimum", "maximum", "format"} <= node.keys(), path
            case "boolean":
                pass  # two values are bound enough
            case kind:
                assert kind == "object", path
                assert "additionalProperties" not in node or "maxProperties" in node, path


@every_definition
def test_every_field_has_a_description_for_kubectl_explain(definition: crd.Definition) -> None:
    for path, node in _nodes(_schema(definition)["properties"]["spec"]):
        # An item of a list is explained by its list.
        assert path.endswith("[]") or node.get("description", "").endswith((".", "!", "?")), path


@every_definition
def test_the_schema_has_only_what_a_structural_schema_may_have(definition: crd.Definition) -> None:
    forbidden = {"$ref", "$defs", "anyOf", "title", "const", "uniqueItems"}
    for path, node in _nodes(_schema(definition)):
        assert not forbidden & node.keys(), path
        assert not {"additionalProperties", "properties"} <= node.keys(), path


@every_definition
def test_the_name_rule_stands_at_the_root(definition: crd.Definition) -> None:
    (rule,) = _schema(definition)[VALIDATIONS]
    assert "metadata.name" in rule["rule"]
    assert "fieldPath" not in rule


@pytest.mark.parametrize(
    ("definition", "model", "smallest"),
    [
        pytest.param(crd.DEFINITIONS[0], LLMProviderSpec, {"type": "OpenAI", "models": [{"name": "a"}]}, id="provider"),
        pytest.param(crd.DEFINITIONS[1], TeamQuotaSpec, {}, id="quota"),
    ],
)
def test_stored_defaults_are_the_models_defaults(
    definition: crd.Definition, model: type[LLMProviderSpec | TeamQuotaSpec], smallest: dict[str, Any]
) -> None:
    stored = _with_defaults(_schema(definition)["properties"]["spec"], smallest)

    assert model.model_validate(stored, by_alias=True, by_name=False) == model.model_validate(smallest)
    explicit = model.model_validate(smallest).model_dump(by_alias=True, mode="json", exclude_none=True)
    assert stored == _without_empty_lists(explicit)


def _without_empty_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_empty_lists(item) for name, item in value.items() if item != []}
    if isinstance(value, list):
        return [_without_empty_lists(item) for item in value]
    return value


def test_lists_with_identities_are_maps_and_sets() -> None:
    provider, quota = (_schema(definition)["properties"]["spec"]["properties"] for definition in crd.DEFINITIONS)
    assert provider["models"]["x-kubernetes-list-map-keys"] == ["name"]
    assert quota["limits"]["x-kubernetes-list-map-keys"] == ["name"]
    assert provider["apis"]["x-kubernetes-list-type"] == "set"


@every_definition
def test_status_follows_the_api_conventions(definition: crd.Definition) -> None:
    status = _schema(definition)["properties"]["status"]["properties"]
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert "reason" in status["conditions"]["items"]["required"]
    assert status["observedGeneration"]["type"] == "integer"


def test_a_keyword_that_a_crd_cannot_hold_stops_the_generator() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        crd.structural({"type": "integer", "multipleOf": 2}, {})
