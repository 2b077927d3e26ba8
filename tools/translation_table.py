"""`make generate`: docs/translation.md, which tells what of each wire language reaches each other one.

Nothing in it is written by hand: each feature of `translation_catalogue.yaml` is tried at every encoder.
"""

# ruff: noqa: INP001 - a loose program, not a package

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.translation.answer import check_readable
from llm_sidecar.translation.losses import Losses, Undecodable, Untranslatable
from llm_sidecar.translation.registry import EMBEDDING, GENERATING, embedding_translator, translator

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "translation.md"
CATALOGUE: Final = Path(__file__).with_name("translation_catalogue.yaml")
MODELS: Final[Mapping[API, str]] = {
    API.OPENAI_CHAT: "gpt-5",
    API.OPENAI_RESPONSES: "gpt-5",
    API.ANTHROPIC_MESSAGES: "claude-sonnet-4-5",
    API.GEMINI: "gemini-3-flash-preview",
    API.OPENAI_EMBEDDINGS: "text-embedding-3-small",
}
"""Asked of each language: some things depend on the model."""

_HEAD: Final = """\
# What is carried from one API to another

Any application can be answered by any provider (see [routing.md](routing.md)). If the two speak the same API, nothing
is translated and nothing is lost. If not, this page tells what happens to each feature. It is written by
`make generate`, which tries every feature of `tools/translation_catalogue.yaml` with the translators themselves, for
the models {models}.

- **yes**: carried.
- **not needed**: the other API does so anyhow.
- **without** `name`: left out because the answer is as good without it; the response header `x-llm-sidecar-dropped`
  names it. What a provider has answered is paid for: of answers, what cannot be said is left out and named, too.
- **no**: the answer would be another one. This provider is skipped, and the next candidate is asked; if none is left,
  the application gets an error that says why.
- **fails**: no answer in any other language. It counts as this provider's failure, and the next candidate is asked.
"""


@dataclass(frozen=True, slots=True)
class _Told:
    document: bytes
    losses: tuple[str, ...]


def page() -> str:
    """The whole page."""
    catalogue: dict[str, Any] = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    embeddings: dict[str, Any] = catalogue.pop("embeddings")
    missing = (set(GENERATING) - {API(name) for name in catalogue}) | (
        set(EMBEDDING) - {API(name) for name in embeddings}
    )
    if missing:
        raise SystemExit(f"{CATALOGUE.name} lacks {', '.join(sorted(missing))}")
    models = ", ".join(f"`{model}`" for model in dict.fromkeys(MODELS[api] for api in GENERATING))
    return "".join(
        [
            _HEAD.format(models=models),
            *(_section(api, catalogue[api.value]) for api in GENERATING),
            *(_embeddings(api, embeddings[api.value]) for api in EMBEDDING),
        ]
    )


def _call(entry: Mapping[str, Any]) -> Call:
    call = recognise("POST", entry["path"], "", {})
    if not isinstance(call, Call):
        raise SystemExit(f"{entry['path']} in {CATALOGUE.name} is no call")
    return call


def _section(source: API, entry: Mapping[str, Any]) -> str:
    others = [api for api in GENERATING if api is not source]
    call = _call(entry)

    def request(document: Any, target: API) -> _Told:
        losses = Losses()
        asked = translator(source).decode_request(call, document)
        encoded = translator(target).encode_request(asked, model=MODELS[target], losses=losses)
        return _Told(orjson.dumps(encoded.document), tuple(losses.names))

    def answer(document: Any, target: API) -> _Told:
        losses = Losses()
        decoded = translator(source).decode_answer(document)
        check_readable(decoded)
        encoded = translator(target).encode_answer(decoded, losses=losses)
        return _Told(orjson.dumps(encoded), tuple(losses.names))

    return _tables(
        others,
        {
            f"## From an application of {source.value}": _rows(entry["request"], others, request),
            f"### {source.value} answers for other applications": _rows(entry["answer"], others, answer),
        },
    )


def _embeddings(source: API, entry: Mapping[str, Any]) -> str:
    """As `_section`, for requests to embed."""
    others = [api for api in EMBEDDING if api is not source]
    own, call = embedding_translator(source), _call(entry)
    asked = own.decode_request(call, entry["request"]["base"])

    def request(document: Any, target: API) -> _Told:
        losses = Losses()
        decoded = own.decode_request(call, document)
        encoded = embedding_translator(target).encode_request(decoded, model=MODELS[target], losses=losses)
        told = {"path": encoded.path, "document": encoded.document, "encoding": decoded.encoding}
        return _Told(orjson.dumps(told), tuple(losses.names))

    def answer(document: Any, target: API) -> _Told:
        losses = Losses()
        vectors = own.decode_answer(asked, document)
        encoded = embedding_translator(target).encode_answer(asked, vectors, losses=losses)
        return _Told(orjson.dumps(encoded), tuple(losses.names))

    name = "OpenAI" if source is API.OPENAI_EMBEDDINGS else source.value
    return _tables(
        others,
        {
            f"## Embeddings, from an application of {name}": _rows(entry["request"], others, request),
            f"### {name} embeds for other applications": _rows(entry["answer"], others, answer),
        },
    )


def _tables(others: Sequence[API], rows: Mapping[str, Iterator[str]]) -> str:
    head = f"| | {' | '.join(api.value for api in others)} |\n|{' --- |' * (len(others) + 1)}\n"
    return "".join(f"\n{title}\n\n{head}{''.join(lines)}" for title, lines in rows.items())


def _rows(entry: Mapping[str, Any], targets: list[API], bring: Callable[[Any, API], _Told]) -> Iterator[str]:
    base: Mapping[str, Any] = entry["base"]
    plain = {target: bring(base, target) for target in targets}
    for feature, members in entry["features"].items():
        document = {name: value for name, value in {**base, **members}.items() if value is not None}
        cells = [_cell(plain[target], document, target, bring) for target in targets]
        yield f"| {feature} | {' | '.join(cells)} |\n"


def _cell(plain: _Told, document: Any, target: API, bring: Callable[[Any, API], _Told]) -> str:
    try:
        told = bring(document, target)
    except Untranslatable as error:
        return f"no: {error.what}".replace("|", r"\|")
    except Undecodable as error:
        return f"fails: {error}".replace("|", r"\|")
    lost = ", ".join(f"`{name}`" for name in told.losses if name not in plain.losses)
    if lost:
        return f"without {lost}"
    return "yes" if told.document != plain.document else "not needed"


def main() -> int:
    """Write the page, or tell that it differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    print(f"{PAGE.relative_to(ROOT)} differs: run `python tools/translation_table.py --write`", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
