"""Who can take a request at all, before anybody is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.failover.gate import ELSEWHERE_STATE, unfit
from llm_sidecar.failover.routes import Candidate, ConfiguredProvider
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.providers.base import ProviderSettings
from llm_sidecar.providers.openai import OpenAIProvider

TRANSPORT: Any = None
CONFIGURED = ConfiguredProvider(
    provider=OpenAIProvider(ProviderSettings("p"), TRANSPORT),
    priority=0,
    weight=1,
    models=(),
    passthrough_paths=(),
    asks_for_stream_usage=True,
    cache_ttl_seconds={},
)
REQUEST = ParsedRequest(
    call=Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/responses"),
    body=b"{}",
    document={},
    model="m",
    stream=False,
    max_output_tokens=None,
    input_tokens_estimate=1000,
    stateful=False,
    deterministic=False,
)


def candidate(window: int | None = None, *, api: API = API.OPENAI_RESPONSES, stands_in: bool = False) -> Candidate:
    model = Model.model_validate({"name": "m"} if window is None else {"name": "m", "contextWindowTokens": window})
    return Candidate(CONFIGURED, model, None, api, stands_in)


@pytest.mark.parametrize(("window", "fits"), [(None, True), (1000, True), (999, False), (1_000_000, True)])
def test_a_request_goes_where_its_input_fits_into_the_window(window: int | None, fits: bool) -> None:
    reasons = unfit([candidate(window), candidate()], REQUEST)

    assert (0 not in reasons) is fits
    assert 1 not in reasons


def test_the_reason_tells_both_sizes() -> None:
    reason = unfit([candidate(999), candidate()], REQUEST)[0]

    assert "999 tokens" in reason
    assert "about 1000" in reason


def test_an_estimate_alone_leaves_nobody_out_where_it_would_leave_nobody() -> None:
    assert unfit([candidate(10), candidate(20)], REQUEST) == {}


def test_state_pins_the_first_that_speaks_the_language_itself() -> None:
    candidates = [candidate(api=API.OPENAI_CHAT), candidate(), candidate(), candidate(stands_in=True)]

    assert unfit(candidates, replace(REQUEST, stateful=True)) == dict.fromkeys((0, 2, 3), ELSEWHERE_STATE)


def test_state_is_never_translated_nor_left_to_a_stand_in() -> None:
    candidates = [candidate(api=API.OPENAI_CHAT), candidate(stands_in=True)]

    assert unfit(candidates, replace(REQUEST, stateful=True)) == dict.fromkeys((0, 1), ELSEWHERE_STATE)


def test_the_home_of_state_is_asked_although_its_window_seems_too_small() -> None:
    candidates = [candidate(10), candidate()]

    assert unfit(candidates, replace(REQUEST, stateful=True)) == {1: ELSEWHERE_STATE}
