"""Compare raw answers with the SDKs' own types and with recorded traffic: neither a missing nor an unknown field."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pydantic
import pytest

_ROOT = Path(__file__).resolve().parents[3]


def events_of(text: str) -> list[tuple[str | None, Any]]:
    """Take a stream of events apart into (event name, data); data that is no JSON stays text."""
    events = []
    for frame in text.replace("\r\n", "\n").split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in frame.split("\n") if line)
        if "data" in lines:
            data = lines["data"]
            events.append((lines.get("event"), json.loads(data) if data.startswith("{") else data))
    return events


def assert_known_shape(kind: Any, data: Any, *, api: str) -> None:
    """Validate `data` as `kind`; what the type does not know must occur in recordings of that API."""
    try:
        unknown = set(_extras(_adapter(kind).validate_python(data), ""))
    except pydantic.ValidationError as error:
        wrong = [each for each in error.errors() if each["type"] != "extra_forbidden"]
        assert not wrong
        unknown = {_path(each["loc"]) for each in error.errors()}
    if not unknown:
        return
    recorded = recorded_paths(api)
    if recorded is None:
        pytest.skip(f"fields that the SDK does not know need the recordings to be checked: {sorted(unknown)}")
    assert {path for path in unknown if path not in recorded} == set()


@cache
def recorded_paths(api: str) -> frozenset[str] | None:
    """Every path of keys in the recorded answers of an API, or None where there are no recordings."""
    folder = Path(os.environ.get("LLM_SIDECAR_RECORDINGS", _ROOT.parent / "shared" / "recordings"))
    file = folder / f"{api}.jsonl"
    if not file.exists():
        return None
    paths: set[str] = set()
    for line in file.read_text().splitlines():
        exchange = json.loads(line)
        for data in _documents(exchange["response"]):
            paths.update(_keys(data, ""))
    return frozenset(paths)


@cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    # Building one for the union of all stream events takes seconds.
    return pydantic.TypeAdapter(kind)


def _documents(text: str) -> Iterator[Any]:
    if text.startswith(("data:", "event:", ":")):
        yield from (data for _, data in events_of(text))
    elif text.lstrip().startswith(("{", "[")):
        yield json.loads(text)


def _keys(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield f"{path}.{name}"
            yield from _keys(each, f"{path}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _keys(each, path)


def _extras(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name, field in type(value).model_fields.items():
            yield from _extras(getattr(value, name), f"{path}.{field.alias or name}")
    elif isinstance(value, list):
        for each in value:
            yield from _extras(each, path)


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f".{step}" for step in location if isinstance(step, str))
