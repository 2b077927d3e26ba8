"""The recorded traffic of the real providers, by wire language: what every translator must hold against.

Where the recordings are absent, whoever asks for them is skipped and says why (and fails under `--require-all`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

import pytest

from llm_sidecar.contract.names import API
from tests.conftest import _missing, _recordings_directory
from tests.integration import recorded_exchanges
from tests.integration.recorded_exchanges import Exchange

_Test = TypeVar("_Test", bound=Callable[..., Any])

_GENERATIONS: Final = {
    API.OPENAI_CHAT: re.compile(r"/v1/chat/completions"),
    API.OPENAI_RESPONSES: re.compile(r"/v1/responses"),
    API.OPENAI_EMBEDDINGS: re.compile(r"/v1/embeddings"),
    API.ANTHROPIC_MESSAGES: re.compile(r"/v1/messages"),
    API.GEMINI: re.compile(r"/v1(?:beta)?/models/[^/:]+:(?:generateContent|streamGenerateContent)"),
}
_GEMINI_EMBEDDINGS: Final = re.compile(r"/v1(?:beta)?/models/[^/:]+:(?:embedContent|batchEmbedContents)")


def recorded(api: API) -> list[Exchange]:
    """The calls that generate (or embed) in this language, whatever came of them: look at `status`."""
    return _matching(_GENERATIONS[api])


def recorded_gemini_embeddings() -> list[Exchange]:
    """Gemini's calls that embed."""
    return _matching(_GEMINI_EMBEDDINGS)


def each_recorded(
    api: API, *, answered: bool = False, stream: bool | None = None, found: Callable[[], list[Exchange]] | None = None
) -> Callable[[_Test], _Test]:
    """Run a test, which takes an `exchange`, once for each of `recorded(api)` (or of what `found` gives).

    `answered`: those with status 200 alone; `stream`: those alone whose answer is, or is not, a stream.
    """
    reason = _missing("recordings")
    if reason is not None:
        return pytest.mark.parametrize(
            "exchange", [pytest.param(None, id="recordings", marks=pytest.mark.skip(reason=reason))]
        )
    exchanges = [
        exchange
        for exchange in (found() if found else recorded(api))
        if (not answered or exchange.status == 200) and (stream is None or exchange.is_stream == stream)
    ]
    return pytest.mark.parametrize("exchange", [pytest.param(each, id=each.id) for each in exchanges])


def _matching(path: re.Pattern[str]) -> list[Exchange]:
    reason = _missing("recordings")
    if reason is not None:
        pytest.skip(reason, allow_module_level=True)
    return [
        exchange
        for exchange in _all_exchanges()
        if exchange.method == "POST" and path.fullmatch(exchange.path.partition("?")[0])
    ]


@cache
def _all_exchanges() -> list[Exchange]:
    return recorded_exchanges.load(_recordings_directory())
