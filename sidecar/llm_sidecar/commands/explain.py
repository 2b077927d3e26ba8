"""`llm-sidecar explain`: tells from manifests what would be tried for a model, without a call to anybody."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Egress
from llm_sidecar.contract.team_quota_resource import Routing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llm_sidecar.contract.config import ConfigDocument
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.manifests import Manifests
    from llm_sidecar.runtime import Runtime

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

OK: Final = 0
NOBODY: Final = 1
UNUSABLE: Final = 2
_COLUMNS: Final = ("order", "provider", "model sent", "language", "priority", "weight", "USD per million", "notes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One candidate, as it is told."""

    provider: str
    type: str
    model: str
    """The name that is sent."""
    api: str
    translated: bool
    stands_in: bool
    priority: int
    weight: int
    pricing: dict[str, str] | None
    context_window_tokens: int | None
    skipped: str
    """Why it would not be asked; empty where it would."""


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "explain",
        help="tell what would be tried for a model, without a call",
        description="Tell who would be asked for a model, in order, in which language, and who would be skipped. "
        "Nobody is called, and no key is needed. What only a running proxy knows (open circuits, rateLimits) is asked "
        "from it: GET /_llm-sidecar/explain/REQUEST-ID. Ends with 0, with 1 where nobody would be asked, with 2 where "
        "the manifests cannot be used.",
    )
    parser.add_argument(
        "-f",
        "--filename",
        dest="paths",
        metavar="FILE_OR_DIR",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="YAML or JSON files, or folders of them; may be repeated",
    )
    parser.add_argument("--model", required=True, help="the name that the application asks for")
    parser.add_argument(
        "--api",
        choices=[str(api) for api in API],
        default=str(API.OPENAI_CHAT),
        help="the API that the application speaks (%(default)s)",
    )
    parser.add_argument("--embeddings", action="store_true", help="a request to embed, where the API has both")
    parser.add_argument("--team", metavar="[NAMESPACE/]NAME", help="the TeamQuota to ask for, where there are several")
    parser.add_argument(
        "--input-tokens", type=_tokens, default=1000, metavar="N", help="how large the request is (%(default)s)"
    )
    parser.add_argument("--output-tokens", type=_tokens, metavar="N", help="its cap on the answer; by default none")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="text for people, json for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain, print, and return the exit status."""
    from llm_sidecar.errors import SidecarError  # noqa: PLC0415 - only this command needs it

    compiled = _compiled(arguments)
    if compiled is None:
        return UNUSABLE
    runtime, document = compiled
    types = {entry.label: entry.spec.type for entry in document.providers}
    request = _request(arguments)
    try:
        candidates = runtime.candidates(request)
    except SidecarError as error:
        ways, reason = [], error.message
    else:
        ways, reason = _ways(candidates, request, types), ""
    if arguments.output == "json":
        _print_json(arguments, runtime, ways, reason)
    elif reason:
        sys.stdout.write(f"{reason}\n")
    else:
        by_price = document.team is not None and document.team.spec.routing is Routing.CHEAPEST
        _print_table(f"{arguments.model} in {arguments.api}, team {runtime.team}:", ways, by_price=by_price)
    return OK if any(not way.skipped for way in ways) else NOBODY


def _tokens(text: str) -> int:
    """A number of tokens, for argparse."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens: give a whole number of at least 0")
    return int(text)


def _compiled(arguments: argparse.Namespace) -> tuple[Runtime, ConfigDocument] | None:
    """The manifests, ready for use; None where they cannot be used, which is told."""
    from llm_sidecar.contract.config import ConfigRefused  # noqa: PLC0415
    from llm_sidecar.manifest_files import Unreadable  # noqa: PLC0415
    from llm_sidecar.manifests import assemble, load  # noqa: PLC0415
    from llm_sidecar.providers.factory import LLMProviderFactory  # noqa: PLC0415
    from llm_sidecar.runtime import Transports, compile_runtime  # noqa: PLC0415

    try:
        manifests = _without_secrets(load(arguments.paths, known_types=LLMProviderFactory.types()))
        # A store is named, and never reached: limits cannot be compiled without.
        document = assemble(manifests, team=arguments.team, store_url="redis://127.0.0.1")
        runtime = compile_runtime(document, "", Transports())
    except Unreadable as error:
        sys.stderr.write(f"{error}\n")
        return None
    except ConfigRefused as refused:
        sys.stderr.writelines(f"{problem}\n" for problem in refused.problems)
        return None
    return runtime, document


def _without_secrets(manifests: Manifests) -> Manifests:
    """Nobody is called, so nobody's key is needed: neither its Secret nor its environment variable."""
    bare = {"credentials": None, "egress": Egress()}
    return replace(
        manifests,
        providers=tuple(
            replace(read, value=read.value.model_copy(update={"spec": read.value.spec.model_copy(update=bare)}))
            for read in manifests.providers
        ),
    )


def _request(arguments: argparse.Namespace) -> ParsedRequest:
    """The request that stands for those meant: of that size, and with nothing in it that any language lacks."""
    from llm_sidecar.formats.base import Call, ParsedRequest  # noqa: PLC0415

    api = API(arguments.api)
    embeds = arguments.embeddings or api is API.OPENAI_EMBEDDINGS
    return ParsedRequest(
        call=Call(api=api, type=RequestType.EMBEDDINGS if embeds else RequestType.GENERATION, path=""),
        body=b"",
        document={},
        model=arguments.model,
        stream=False,
        max_output_tokens=0 if embeds else arguments.output_tokens,
        input_tokens_estimate=arguments.input_tokens,
        stateful=False,
        deterministic=False,
    )


def _ways(candidates: Sequence[Candidate], request: ParsedRequest, types: dict[str, str]) -> list[Way]:
    from llm_sidecar.failover.gate import unfit  # noqa: PLC0415

    reasons = unfit(candidates, request) if len(candidates) > 1 else {}
    return [
        Way(
            provider=one.name,
            type=types[one.name],
            model=one.answering_model(request.model),
            api=str(one.api),
            translated=one.api is not request.call.api,
            stands_in=one.stands_in,
            priority=one.configured.priority,
            weight=one.configured.weight,
            pricing=_pricing(one),
            context_window_tokens=one.model.context_window_tokens,
            skipped=reasons.get(position, ""),
        )
        for position, one in enumerate(candidates)
    ]


def _pricing(candidate: Candidate) -> dict[str, str] | None:
    pricing = candidate.model.pricing
    return None if pricing is None else pricing.model_dump(mode="json", by_alias=True, exclude_none=True)


# --- told


def _print_json(arguments: argparse.Namespace, runtime: Runtime, ways: Sequence[Way], reason: str) -> None:
    told: dict[str, Any] = {
        "model": arguments.model,
        "api": arguments.api,
        "team": runtime.team,
        "candidates": [_document(way) for way in ways],
        "refused": reason,
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def _print_table(title: str, ways: Sequence[Way], *, by_price: bool) -> None:
    sys.stdout.write(f"{title}\n\n")
    sys.stdout.writelines(_table([_COLUMNS, *_rows(ways)]))
    if by_price:
        sys.stdout.write("\nAmong equal priorities the cheapest for a request of this size goes first.\n")
    elif _shares(ways):
        sys.stdout.write("\nEqual priorities share requests by weight: their order is drawn anew for each request.\n")


def _document(way: Way) -> dict[str, Any]:
    """With names as in manifests."""
    named = {"stands_in": "standsIn", "context_window_tokens": "contextWindowTokens"}
    return {named.get(name, name): value for name, value in asdict(way).items()}


def _rows(ways: Iterable[Way]) -> Iterable[Sequence[str]]:
    order = 0
    for way in ways:
        order += not way.skipped
        notes = [
            *(["stands in"] if way.stands_in else []),
            *([f"skipped: {way.skipped}"] if way.skipped else []),
        ]
        language = f"{way.api} (translated)" if way.translated else way.api
        yield (
            "-" if way.skipped else str(order),
            way.provider,
            way.model,
            language,
            str(way.priority),
            str(way.weight),
            _price(way.pricing),
            "; ".join(notes),
        )


def _price(pricing: dict[str, str] | None) -> str:
    if pricing is None:
        return "-"
    return f"{pricing['inputUSDPerMillionTokens']} in, {pricing['outputUSDPerMillionTokens']} out"


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


def _shares(ways: Sequence[Way]) -> bool:
    ranks = [(way.stands_in, way.priority) for way in ways if not way.skipped]
    return len(set(ranks)) < len(ranks)
