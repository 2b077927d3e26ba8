"""What of the chart is made from elsewhere: the CRD templates, the schema's descriptions, and the page of its values.

The CRDs come from `crds/`, the meaning of each value from its comment in `values.yaml`: both are said once.
`python tools/chart_generated.py --write` writes them, `--check` fails where they differ.
"""

# ruff: noqa: INP001, T201 - a loose program that talks, not a package

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "charts" / "llm-sidecar"
VALUES: Final = CHART / "values.yaml"
SCHEMA: Final = CHART / "values.schema.json"
PAGE: Final = ROOT / "docs" / "chart-values.md"

_MARK: Final = "# -- "
_PAGE_HEAD: Final = """\
# The chart's values

Generated from [`values.yaml`](../charts/llm-sidecar/values.yaml) by `python tools/chart_generated.py --write`: do not
edit. `values.schema.json` holds them too: Helm refuses a value that is not listed here, and names it.

| value | default | |
| --- | --- | --- |
"""
_CRD_HEAD: Final = """\
{{- /* Generated from crds/ by `python tools/chart_generated.py --write`: do not edit. */ -}}
{{- if .Values.crds.enabled }}
"""
_CRD_METADATA: Final = """\
  labels:
    {{- include "llm-sidecar.labels" (dict "root" . "component" "crds") | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def generated() -> dict[Path, str]:
    """Each generated file's text, by its path."""
    described = dict(descriptions(VALUES.read_text(encoding="utf-8")))
    files = {
        CHART / "templates" / "crds" / source.name: crd_template(source.read_text(encoding="utf-8"))
        for source in sorted((ROOT / "crds").glob("*.yaml"))
    }
    files[SCHEMA] = schema_text(json.loads(SCHEMA.read_text(encoding="utf-8")), described)
    files[PAGE] = page(yaml.safe_load(VALUES.read_text(encoding="utf-8")), described)
    return files


def crd_template(crd: str) -> str:
    """A CRD as a template of the chart: the same lines, under a condition and with the chart's own metadata."""
    body = "".join(line for line in crd.splitlines(keepends=True) if not line.startswith("#"))
    # What looks like a template's action is text here.
    body = re.sub(r"\{\{|\}\}", lambda match: '{{ "' + match[0] + '" }}', body)
    head, name, rest = re.split(r"(?m)^(  name: .*\n)", body, maxsplit=1)
    return f"{_CRD_HEAD}{head}{name}{_CRD_METADATA}{rest}{{{{- end }}}}\n"


def descriptions(values: str) -> Iterator[tuple[str, str]]:
    """Each documented value's path and its comment."""
    parents: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        text = line.strip()
        if text.startswith(_MARK):
            comment = [text.removeprefix(_MARK)]
        elif text.startswith("# ") and comment:
            comment.append(text.removeprefix("# "))
        elif match := re.match(r"( *)([A-Za-z]+):", line):
            indent = len(match[1])
            parents = [(depth, name) for depth, name in parents if depth < indent]
            parents.append((indent, match[2]))
            if comment:
                yield ".".join(name for _, name in parents), " ".join(comment)
            comment = []
        else:
            comment = []


def schema_text(schema: dict[str, Any], described: dict[str, str]) -> str:
    """The schema, with each value's comment as its description."""
    for path, text in described.items():
        node = schema
        for name in path.split("."):
            node = node["properties"][name]
        node["description"] = text
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def page(values: dict[str, Any], described: dict[str, str]) -> str:
    """The page of all values, in the order of the file."""
    rows = [f"| `{path}` | {_shown(_at(values, path))} | {text} |\n" for path, text in described.items()]
    return _PAGE_HEAD + "".join(row.replace("||", r"\|\|") for row in rows)


def _at(values: dict[str, Any], path: str) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


def _shown(value: Any) -> str:
    return "" if value in ("", None) and value is not False else f"`{json.dumps(value)}`"


def main() -> int:
    """Write the files, or tell which differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = [
        path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if arguments.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(generated()[path], encoding="utf-8")
        else:
            print(f"{path.relative_to(ROOT)} differs: run `python tools/chart_generated.py --write`", file=sys.stderr)
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
