"""What is expected of the next request's input, by what the last ones had."""

from __future__ import annotations

from typing import Any

import orjson

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest
from llm_sidecar.formats.input_bound import text_tokens_at_most
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.quota.learning import LearnedModel
from llm_sidecar.reserving import expected_input_tokens, learn_input


def request(**members: Any) -> ParsedRequest:
    call = Call(api=API.OPENAI_RESPONSES, type=RequestType.GENERATION, path="/v1/responses")
    return FORMATS[call.api].parse_request(call, orjson.dumps({"model": "m", **members}))


TEXT = request(input="word " * 800)
FOLLOW_UP = request(input="go on", previous_response_id="resp_1")


def learned(*calls: tuple[ParsedRequest, int]) -> LearnedModel:
    model = LearnedModel()
    for asked, told in calls:
        learn_input(model, asked, told)
    return model


def test_a_stored_conversation_makes_the_next_follow_up_dear_and_no_text() -> None:
    """A ratio of 60,000 to a body of two words would refuse every text for ever."""
    model = learned(*[(TEXT, 900)] * 60, (FOLLOW_UP, 60_000))
    assert expected_input_tokens(model, TEXT) == 900
    assert 60_000 <= expected_input_tokens(model, FOLLOW_UP) < 60_100
    longer = request(input="word " * 800, previous_response_id="resp_1")
    assert 60_000 < expected_input_tokens(model, longer) < 62_000


def test_a_server_that_adds_words_of_its_own_is_expected_to_do_so_again() -> None:
    model = learned(*[(request(input="hello"), 5000)] * 60)
    assert expected_input_tokens(model, request(input="hello")) >= 5000
    assert 5000 < expected_input_tokens(model, TEXT) < 7000
    assert expected_input_tokens(model, FOLLOW_UP) == FOLLOW_UP.input_tokens_estimate


def test_a_short_text_with_many_tokens_teaches_no_more_of_a_long_one_than_its_bytes() -> None:
    short = request(input="hi")
    model = learned(*[(short, text_tokens_at_most(short))] * 60)
    assert expected_input_tokens(model, short) == text_tokens_at_most(short)
    assert expected_input_tokens(model, TEXT) == text_tokens_at_most(TEXT)
