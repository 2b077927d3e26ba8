"""Each field of a resource is explained on its page, with the default that the CRD stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_sidecar.contract import crd

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}{name}", child
        yield from _fields(child, f"{path}{name}.")
        yield from _fields(child.get("items", {}), f"{path}{name}[].")


@pytest.mark.parametrize("definition", crd.DEFINITIONS, ids=lambda definition: definition.plural)
def test_the_page_has_every_field_with_its_default_and_no_other(definition: crd.Definition) -> None:
    page = (PAGES / f"{definition.model.__name__.lower()}.md").read_text(encoding="utf-8")
    page = page.partition("\n## Fields of `spec`\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ") for line in page.replace("\\|", "/").splitlines() if line.startswith("| `")]
    defaults = {row[0].strip("| `"): row[2].strip(" `") for row in cells}
    fields = dict(_fields(crd.root_schema(definition.model)["properties"]["spec"]))
    # An object with a default is told by its fields; a map has none.
    told = {
        path: field
        for path, field in fields.items()
        if field["type"] != "object" or "default" not in field or "additionalProperties" in field
    }

    assert defaults.keys() == told.keys()
    for path, field in told.items():
        if "default" in field:
            default = field["default"]
            assert defaults[path] == (str(default).lower() if isinstance(default, bool) else str(default)), path
