"""Our own errors, in every API's shape; and the headers that go with every answer."""

from __future__ import annotations

import orjson
import pytest
from multidict import CIMultiDict

from llm_sidecar import errors
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.errors import SidecarError
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.recognise import Family, ModelList
from llm_sidecar.record import Attempt, RequestRecord
from llm_sidecar.replies import answer_headers, error_reply, family_of


def every_error() -> list[type[SidecarError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SidecarError)]
    return [one for one in found if one not in {errors.SidecarError, errors.RequestRefused}]


def made(kind: type[SidecarError]) -> SidecarError:
    if kind is errors.MethodNotAllowed:
        return errors.MethodNotAllowed("told", allowed="POST")
    return kind("told", details={"figure": 1}, retry_after_milliseconds=1500)


@pytest.mark.parametrize("kind", every_error())
@pytest.mark.parametrize("family", list(Family))
def test_each_error_is_told_in_each_shape_with_its_stable_code(kind: type[SidecarError], family: Family) -> None:
    record = RequestRecord("id-1", "none")
    reply = error_reply(made(kind), family, record)
    assert isinstance(reply.body, bytes)
    error = orjson.loads(reply.body)["error"]
    assert reply.status == kind.status
    assert error["message"] == "told"
    assert kind.code in reply.body.decode()
    assert (record.status, record.error_code) == (kind.status, kind.code)
    assert reply.headers["x-llm-sidecar-refused-by"] == "llm-sidecar"
    assert reply.headers["x-llm-sidecar-request-id"] == "id-1"
    if kind is errors.MethodNotAllowed:
        assert reply.headers["allow"] == "POST"
    else:
        assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("2", "1500")


def test_when_to_come_back_is_told_where_googles_clients_look() -> None:
    error = errors.Overloaded("told", retry_after_milliseconds=1500)
    reply = error_reply(error, Family.GEMINI, RequestRecord("id", "none"))
    assert isinstance(reply.body, bytes)
    details = orjson.loads(reply.body)["error"]["details"]
    assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"} in details


@pytest.mark.parametrize("family", list(Family))
def test_nothing_is_said_of_coming_back_where_it_is_not_known(family: Family) -> None:
    reply = error_reply(errors.UnknownModel("told"), family, RequestRecord("id", "none"))
    assert isinstance(reply.body, bytes)
    assert b"retry" not in reply.body.lower()
    assert "retry-after" not in reply.headers


def test_codes_are_stable_and_no_two_are_alike() -> None:
    codes = [kind.code for kind in every_error()]
    assert len(codes) == len(set(codes))


def test_the_called_api_decides_the_shape_over_the_family() -> None:
    record = RequestRecord("id", "none")
    record.api = API.GEMINI
    reply = error_reply(errors.UnknownModel("told"), Family.OPENAI, record)
    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body)["error"]["status"] == "NOT_FOUND"


def test_family_of_a_call_is_its_apis() -> None:
    assert family_of(Call(api=API.GEMINI, type=RequestType.GENERATION, path="/")) is Family.GEMINI
    assert family_of(ModelList(Family.ANTHROPIC)) is Family.ANTHROPIC


def test_answers_say_who_answered_after_how_many_attempts() -> None:
    record = RequestRecord("id", "none")
    record.attempts = [Attempt("a", "server", 500, 1), Attempt("b", "answered", 200, 1)]
    record.answered_by, record.cache, record.quota_remaining = ("b", "m"), "miss", "daily=5"
    headers = answer_headers([("X-A", "1"), ("Server", "theirs")], record)
    assert len(headers.getall("server")) == 1
    del headers["server"]
    assert headers == CIMultiDict(
        {
            "X-A": "1",
            "x-llm-sidecar-request-id": "id",
            "x-llm-sidecar-attempts": "2",
            "x-llm-sidecar-provider": "b",
            "x-llm-sidecar-model": "m",
            "x-llm-sidecar-cache": "miss",
            "x-llm-sidecar-quota-remaining": "daily=5",
        }
    )
