"""The cells of the matrix, made of the registry: each application at each provider with each feature.

What a provider was sent, and what the application read, stands in `tests/golden/translation`, one file to a cell.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from llm_sidecar.contract.names import API
from llm_sidecar.translation.registry import GENERATING
from tests.integration.translation.applications import APPLICATIONS, Application, Said
from tests.integration.translation.features import FEATURES, RESULT
from tests.integration.translation.world import MODELS, World, running_world

GOLDEN: Final = Path(__file__).resolve().parents[2] / "golden" / "translation"
_MADE_UP: Final = re.compile(
    r"toolu_01\w{22}|call_[0-9A-Za-z]{24}|chatcmpl-\w{29}|(?:resp|rs|fc|msg)_[0-9a-f]{50}|msg_01\w{22}"
    r"|_llmsidecar_[0-9a-f]{20}|\b[0-9A-Za-z]{128}\b|\b[0-9A-Za-z]{23}\b"
)
_SHORT: Final = re.compile(r"[0-9a-f]{8}")
"""Gemini's ids of calls; only ever a whole value."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One application at one provider."""

    client: API
    provider: API
    feature: str

    @property
    def golden(self) -> Path:
        """The file of this cell."""
        return GOLDEN / f"{self.client.lower()}-to-{self.provider.lower()}-{self.feature}.json"

    @property
    def name(self) -> str:
        """For people."""
        return self.golden.stem


def cells() -> list[Cell]:
    """All of them."""
    return [Cell(*each) for each in itertools.product(GENERATING, GENERATING, FEATURES)]


def application(world: World, client: API, model: str) -> closing[Application]:
    """A new conversation."""
    return closing(APPLICATIONS[client](world, model))


def play(world: World, cell: Cell) -> tuple[list[Said], dict[str, Any]]:
    """What was said in a cell, and the whole of it as its file has it."""
    world.forget()
    feature = FEATURES[cell.feature]
    with application(world, cell.client, MODELS[cell.provider]) as client:
        said = [client.ask(feature.text, feature.wish)]
        if feature.calls_tools:
            said.append(client.give_results(RESULT))
        dropped = [sorted(filter(None, names.split(", "))) for names in client.dropped]
    assert len(world.asked) == len(said), f"each turn is asked of the provider once, not {world.asked}"
    turns = [
        {"asked": asked, "dropped": names, "said": asdict(heard)}
        for asked, names, heard in zip(world.asked, dropped, said, strict=True)
    ]
    return said, json.loads(json.dumps(_normalised(turns)))


def write(tell: Callable[[str], None]) -> None:
    """Write each cell's file, and remove those of cells that are no more."""
    for path in stale():
        path.unlink()
        tell(f"removed {path.name}")
    with running_world() as world:
        for cell in cells():
            text = readable(play(world, cell)[1])
            if not cell.golden.exists() or cell.golden.read_text(encoding="utf-8") != text:
                cell.golden.write_text(text, encoding="utf-8")
                tell(f"wrote {cell.golden.name}")


def stale() -> Iterator[Path]:
    """Files of cells that do not exist."""
    known = {cell.golden for cell in cells()}
    return (path for path in sorted(GOLDEN.glob("*.json")) if path not in known)


def readable(turns: Any) -> str:
    """For people: what differs from one version to the next is a few lines."""
    return json.dumps(turns, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _normalised(value: Any) -> Any:
    """Ids and signatures differ from run to run; here they are numbered by their first appearance."""
    numbers: dict[str, str] = {}

    def numbered(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"<id {len(numbers) + 1}>")

    def walk(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: walk(member) for name, member in each.items()}
        if isinstance(each, list | tuple):
            return [walk(member) for member in each]
        if isinstance(each, str):
            return _SHORT.sub(numbered, each) if _SHORT.fullmatch(each) else _MADE_UP.sub(numbered, each)
        return each

    return walk(value)
