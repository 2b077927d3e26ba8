"""The CustomResourceDefinitions, generated from the models so that nobody can change one without the other.

`python -m llm_sidecar.contract.crd --write crds` writes them, `--check crds` fails where they differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from llm_sidecar.contract.crd_status import status_schema
from llm_sidecar.contract.names import API_GROUP, API_VERSION
from llm_sidecar.contract.resources import LLMProvider, Resource, TeamQuota
from llm_sidecar.contract.rules import VALIDATIONS

JSONSchema = dict[str, Any]

_HEADER: Final = "# Generated from llm_sidecar.contract by `python -m llm_sidecar.contract.crd`: do not edit.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`; those of priority 1 need `-o wide`."""

    name: str
    path: str
    type: str = "string"
    description: str
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a CRD says besides its schema."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]

    @property
    def file_name(self) -> str:
        """Of the generated file."""
        return f"{self.plural}.{API_GROUP}.yaml"


_READY: Final = Column(
    name="Ready",
    path='.status.conditions[?(@.type=="Ready")].status',
    description="Whether it is in use.",
)
_REASON: Final = Column(
    name="Reason",
    path='.status.conditions[?(@.type=="Ready")].reason',
    description="Why it is, or is not, ready.",
)
_MESSAGE: Final = Column(
    name="Message",
    path='.status.conditions[?(@.type=="Ready")].message',
    description="What to do about it.",
    priority=1,
)
_ALLOWED: Final = Column(
    name="Allowed", path=".spec.allowedNamespaces.from", description="Whose pods may use it.", priority=1
)
_AGE: Final = Column(
    name="Age", path=".metadata.creationTimestamp", type="date", description="Time since it was created."
)

DEFINITIONS: Final = (
    Definition(
        model=LLMProvider,
        plural="llmproviders",
        short_name="llmp",
        columns=(
            Column(name="Type", path=".spec.type", description="Kind of provider."),
            Column(name="Priority", path=".spec.priority", type="integer", description="Lower goes first."),
            _READY,
            _REASON,
            Column(
                name="Healthy",
                path='.status.conditions[?(@.type=="Healthy")].status',
                description="Whether it works of late.",
            ),
            Column(
                name="Key",
                path='.status.conditions[?(@.type=="CredentialsValid")].status',
                description="Whether the provider takes the key.",
                priority=1,
            ),
            _ALLOWED,
            Column(name="URL", path=".spec.baseURL", description="Base URL, where not the type's own.", priority=1),
            _MESSAGE,
            _AGE,
        ),
    ),
    Definition(
        model=TeamQuota,
        plural="teamquotas",
        short_name="tq",
        columns=(
            Column(name="Tightest", path=".status.tightest.name", description="The limit that is used most."),
            Column(name="Unit", path=".status.tightest.unit", description="What that limit counts."),
            Column(name="Spent", path=".status.tightest.used", description="What of it is used."),
            Column(name="Reserved", path=".status.tightest.reserved", description="What requests under way hold."),
            Column(name="Limit", path=".status.tightest.limit", description="How much it allows."),
            Column(
                name="Percent", path=".status.tightest.percent", type="integer", description="Used, in per cent of it."
            ),
            # Not a date: kubectl shows how long ago a date was, and this one is still to come.
            Column(name="Resets", path=".status.tightest.resetsAt", description="When its window ends."),
            _READY,
            _REASON,
            Column(
                name="Burn Rate",
                path=".status.tightest.burnRatePerHour",
                description="Used in an hour, of late.",
                priority=1,
            ),
            Column(
                name="Exhausted At",
                path=".status.tightest.exhaustedAt",
                description="When it is used up, if that goes on.",
                priority=1,
            ),
            Column(name="Time Zone", path=".spec.timeZone", description="Of the calendar windows.", priority=1),
            _ALLOWED,
            _MESSAGE,
            _AGE,
        ),
    ),
)


def render(definition: Definition) -> str:
    """The CRD as YAML."""
    return _HEADER + yaml.safe_dump(crd(definition), sort_keys=False, width=120, allow_unicode=True)


def crd(definition: Definition) -> dict[str, Any]:
    """The CRD as a document."""
    kind = definition.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{definition.plural}.{API_GROUP}"},
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": definition.plural,
                "singular": kind.lower(),
                "shortNames": [definition.short_name],
                "categories": ["llm"],
            },
            "versions": [
                {
                    "name": API_VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in definition.columns],
                    "schema": {"openAPIV3Schema": root_schema(definition.model)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    return document | ({"priority": column.priority} if column.priority else {})


def root_schema(model: type[Resource]) -> JSONSchema:
    """The structural schema of a whole object."""
    generated = model.model_json_schema(by_alias=True)
    spec = structural(generated["properties"]["spec"], generated.get("$defs", {}))
    # The API server itself knows these three; saying more about them is not allowed.
    properties: JSONSchema = {
        "apiVersion": {"type": "string", "description": "Version of this schema."},
        "kind": {"type": "string", "description": "Kind of resource."},
        "metadata": {"type": "object"},
        "spec": spec,
        "status": status_schema(model),
    }
    return {
        "type": "object",
        "description": generated["description"],
        **({} if "default" in spec else {"required": ["spec"]}),
        "properties": properties,
        VALIDATIONS: generated[VALIDATIONS],
    }


def structural(schema: Mapping[str, Any], definitions: Mapping[str, JSONSchema]) -> JSONSchema:
    """A schema as Kubernetes wants it: no references, no titles, no unions with null, defaults that are stored."""
    merged = _without_reference(schema, definitions)
    result: JSONSchema = {}
    for keyword, value in merged.items():
        if keyword == "properties":
            result[keyword] = {name: structural(child, definitions) for name, child in value.items()}
        elif keyword == "items" or (keyword == "additionalProperties" and isinstance(value, dict)):
            result[keyword] = structural(value, definitions)
        elif keyword == "default":
            result |= _stored_default(value)
        elif keyword in _KEPT:
            result[keyword] = value
        elif keyword not in _DROPPED:
            raise ValueError(f"JSON schema keyword {keyword!r} has no place in a CRD")
    if result.get("type") == "integer":
        result["format"] = "int64"
    return result


_KEPT: Final = {
    "description",
    "enum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    VALIDATIONS,
}
# Kubernetes closes objects by itself: it drops unknown fields, and kubectl refuses them before that. Names of a map's
# keys cannot be checked by a schema; the operator reads none that it does not understand.
_DROPPED: Final = {"additionalProperties", "propertyNames", "title"}


def _without_reference(schema: Mapping[str, Any], definitions: Mapping[str, JSONSchema]) -> JSONSchema:
    """The schema with what it points to inlined; what stands beside the pointer (the field's text) wins."""
    own = {keyword: value for keyword, value in schema.items() if keyword not in ("$ref", "anyOf")}
    if "anyOf" in schema:
        (target,) = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
    elif "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
    else:
        return own
    # Rules add up: those of a field do not replace those of its type.
    inlined = _without_reference(target, definitions)
    rules = inlined.get(VALIDATIONS, []) + own.get(VALIDATIONS, [])
    return inlined | own | ({VALIDATIONS: rules} if rules else {})


def _stored_default(value: Any) -> JSONSchema:
    # An object's default is empty, so that its fields' own defaults fill it. An empty list would only be noise.
    if isinstance(value, dict):
        return {"default": {}}
    return {} if value in (None, []) else {"default": value}


def stale_files(folder: Path) -> list[str]:
    """Names of the files in the folder that are missing or differ from what the models say."""
    return [
        definition.file_name
        for definition in DEFINITIONS
        if not (path := folder / definition.file_name).is_file()
        or path.read_text(encoding="utf-8") != render(definition)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or say which differ."""
    parser = argparse.ArgumentParser(prog="python -m llm_sidecar.contract.crd", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", metavar="DIR", type=Path, help="write the CRDs into this folder")
    action.add_argument("--check", metavar="DIR", type=Path, help="fail where this folder's CRDs are not up to date")
    chosen = parser.parse_args(arguments)
    if chosen.write is not None:
        chosen.write.mkdir(parents=True, exist_ok=True)
        for definition in DEFINITIONS:
            (chosen.write / definition.file_name).write_text(render(definition), encoding="utf-8")
        return 0
    stale = stale_files(chosen.check)
    for name in stale:
        sys.stderr.write(f"{chosen.check / name} is not up to date. Fix: run with --write {chosen.check}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
