"""Which endpoint a request is for, and what is refused because it could be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.recognise import (
    Family,
    ModelGet,
    ModelList,
    Passthrough,
    UnknownEndpoint,
    WebSocketRefused,
    WrongMethod,
    recognise,
)

_EXACT_PATHS = [
    ("/v1/chat/completions", API.OPENAI_CHAT, RequestType.GENERATION, "/chat/completions"),
    ("/v1/responses", API.OPENAI_RESPONSES, RequestType.GENERATION, "/responses"),
    ("/v1/responses/input_tokens", API.OPENAI_RESPONSES, RequestType.TOKEN_COUNT, "/responses/input_tokens"),
    ("/v1/embeddings", API.OPENAI_EMBEDDINGS, RequestType.EMBEDDINGS, "/embeddings"),
    ("/v1/messages", API.ANTHROPIC_MESSAGES, RequestType.GENERATION, "/v1/messages"),
    ("/v1/messages/count_tokens", API.ANTHROPIC_MESSAGES, RequestType.TOKEN_COUNT, "/v1/messages/count_tokens"),
]


@pytest.mark.parametrize(("path", "api", "kind", "call_path"), _EXACT_PATHS)
def test_the_fixed_endpoints_are_known_by_their_path(path: str, api: API, kind: RequestType, call_path: str) -> None:
    assert recognise("POST", path, "beta=true", {}) == Call(api=api, type=kind, path=call_path)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("generateContent", RequestType.GENERATION),
        ("countTokens", RequestType.TOKEN_COUNT),
        ("embedContent", RequestType.EMBEDDINGS),
        ("batchEmbedContents", RequestType.EMBEDDINGS),
    ],
)
def test_gemini_calls_carry_the_model_of_their_path(version: str, verb: str, kind: RequestType) -> None:
    path = f"/{version}/models/gemini-2.5-flash:{verb}"

    call = recognise("POST", path, "", {})

    assert call == Call(api=API.GEMINI, type=kind, path=path, model="gemini-2.5-flash", stream=False)


@pytest.mark.parametrize(
    ("query", "is_array"),
    [("alt=sse", False), ("key=k&alt=sse", False), ("%24alt=sse", False), ("", True), ("alt=json", True)],
)
def test_a_gemini_stream_is_an_array_unless_events_are_asked_for(query: str, is_array: bool) -> None:
    call = recognise("POST", "/v1/models/m:streamGenerateContent", query, {})

    assert isinstance(call, Call)
    assert call.stream is True
    assert call.stream_is_json_array is is_array


def test_a_model_in_a_gemini_path_is_percent_decoded_once() -> None:
    call = recognise("POST", "/v1beta/models/gemini%2D2.5:generateContent", "", {})

    assert isinstance(call, Call)
    assert call.model == "gemini-2.5"


@pytest.mark.parametrize(
    ("path", "query", "headers", "family"),
    [
        ("/v1/models", "", {}, Family.OPENAI),
        ("/v1/models", "", {"anthropic-version": "2023-06-01"}, Family.ANTHROPIC),
        ("/v1/models", "", {"x-goog-api-key": "t"}, Family.GEMINI),
        ("/v1/models", "key=t", {}, Family.GEMINI),
        ("/v1beta/models", "", {}, Family.GEMINI),
    ],
)
def test_the_shared_model_list_goes_to_whoever_asks(
    path: str, query: str, headers: dict[str, str], family: Family
) -> None:
    assert recognise("GET", path, query, headers) == ModelList(family)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/gpt-5-mini", "gpt-5-mini"),
        ("/v1/models/org%2Fmodel", "org/model"),
        ("/v1/models/org/model", "org/model"),
        ("/v1/models/ft:gpt-5-mini:org", "ft:gpt-5-mini:org"),
        ("/v1/models/ft%3Agpt-5-mini", "ft:gpt-5-mini"),
    ],
)
def test_one_model_is_asked_for_by_any_name_that_sdks_write(path: str, model: str) -> None:
    assert recognise("GET", path, "", {}) == ModelGet(Family.OPENAI, model)


def test_gemini_asks_for_one_model_under_its_own_version() -> None:
    assert recognise("GET", "/v1beta/models/gemini-2.5-pro", "", {}) == ModelGet(Family.GEMINI, "gemini-2.5-pro")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/messages", "POST"),
        ("GET", "/v1beta/models/m:generateContent", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/gpt-5-mini", "GET"),
    ],
)
def test_another_method_names_the_allowed_one(method: str, path: str, allowed: str) -> None:
    found = recognise(method, path, "", {})

    assert isinstance(found, WrongMethod)
    assert found.allowed == allowed


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime", "/v1/chat/completions", "/"])
def test_a_websocket_handshake_is_refused_wherever_it_goes(path: str) -> None:
    assert recognise("GET", path, "", {"upgrade": "WebSocket"}) == WebSocketRefused(Family.OPENAI)


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/v1/files/file-1", {}, Passthrough("/v1/files/file-1", upstream_path="/files/file-1", family=Family.OPENAI)),
        (
            "/v1/files",
            {"anthropic-version": "1"},
            Passthrough("/v1/files", upstream_path="/v1/files", family=Family.ANTHROPIC),
        ),
        (
            "/v1beta/cachedContents",
            {},
            Passthrough("/v1beta/cachedContents", upstream_path="/v1beta/cachedContents", family=Family.GEMINI),
        ),
    ],
)
def test_other_paths_are_candidates_for_passing_through(
    path: str, headers: dict[str, str], expected: Passthrough
) -> None:
    assert recognise("POST", path, "", headers) == expected


def test_an_unknown_gemini_verb_is_no_model_and_no_call() -> None:
    found = recognise("POST", "/v1beta/models/veo:predictLongRunning", "", {})

    assert isinstance(found, Passthrough)


@pytest.mark.parametrize(
    "path",
    [
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/files/../chat/completions",
        "/v1/./chat/completions",
        "/v1/files/%2e%2e/chat/completions",
        "/v1/files/%2E./x",
        "/v1/chat%2fcompletions",
        "/v1/chat%5Ccompletions",
        "/v1/chat\\completions",
        "/v1/chat/completions/",
        "/v1/chat/completions;x=1",
        "/v1/chat/completions%3b",
        "/v1/chat/completions\x00",
        "/v1/chat/completions%00",
        "/v1/chat/completions%250",
        "/v1/%63hat/completions",
        "/v1beta/models/m%3AgenerateContent",
        "/v1beta/models/a%2Fb:generateContent",
        "/v1beta/models/..:generateContent",
        "/v1beta/models/m%00:generateContent",
        "/v1/models/..",
        "/v1/models/",
        "/v1/%c0%ae%c0%ae/x",
        "/v1/files/ x",
        "/v1/files/é",
        "http://example.com/v1/chat/completions",
        "v1/chat/completions",
        "*",
        "",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_path_that_two_servers_could_read_differently_is_unknown(method: str, path: str) -> None:
    assert isinstance(recognise(method, path, "", {}), UnknownEndpoint)


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_path_or_query_breaks_it(path: str, query: str) -> None:
    for method in ("GET", "POST"):
        recognise(method, path, query, {})
        recognise(method, f"/v1/models/{path}:generateContent", query, {})


@given(st.text(alphabet="ab./%2eEfF;:\\", max_size=12))
def test_a_path_that_passes_holds_no_trick(tail: str) -> None:
    found = recognise("POST", f"/v1/files/{tail}", "", {})

    if isinstance(found, Passthrough):
        segments = found.path.split("/")[1:]
        assert all(segment not in ("", ".", "..") for segment in segments)
        assert "%2e" not in found.path.lower()
        assert "%2f" not in found.path.lower()
