"""Who may talk to the proxy."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from llm_sidecar.errors import CrossSiteRequest, WrongPodToken
from llm_sidecar.guards import TokenGuard, check_origin, without_key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9797", "localhost:80", "LocalHost", "[::1]", "[::1]:9797"])
def test_a_loopback_host_is_let_in(host: str) -> None:
    check_origin(CIMultiDict({"Host": host}))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:9797",
        "evil.example:127.0.0.1",
        "10.0.0.1:9797",
        "0.0.0.1",
        "[::2]:9797",
        "127.0.0.1:80:90",
    ],
)
def test_any_other_host_is_not(host: str) -> None:
    with pytest.raises(CrossSiteRequest, match="loopback"):
        check_origin(CIMultiDict({"Host": host}))


@pytest.mark.parametrize(
    "header", [("Origin", "http://localhost"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site")]
)
def test_a_page_is_not_let_in(header: tuple[str, str]) -> None:
    with pytest.raises(CrossSiteRequest, match="web page"):
        check_origin(CIMultiDict([("Host", "localhost"), header]))


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_a_tab_opened_by_its_user_is_let_in(site: str) -> None:
    check_origin(CIMultiDict({"Host": "localhost", "Sec-Fetch-Site": site}))


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer t"}, {"authorization": "bearer t"}, {"X-Api-Key": "t"}, {"X-Goog-Api-Key": "t"}],
)
def test_the_token_is_found_in_each_header(headers: dict[str, str]) -> None:
    TokenGuard("t").check(CIMultiDict(headers), None)


def test_the_token_is_found_in_the_query() -> None:
    TokenGuard("t").check(CIMultiDict(), "t")


@pytest.mark.parametrize("presented", ["", "T", "t ", "tt", "\udce9", "é"])
def test_anything_else_is_refused_and_not_repeated(presented: str) -> None:
    with pytest.raises(WrongPodToken) as raised:
        TokenGuard("token-of-the-pod").check(CIMultiDict({"x-api-key": presented}), None)
    assert "ANTHROPIC_API_KEY" in str(raised.value)
    assert "token-of-the-pod" not in str(raised.value)


def test_without_a_token_everybody_is_let_in() -> None:
    TokenGuard(None).check(CIMultiDict(), None)


@pytest.mark.parametrize(
    ("query", "rest", "key"),
    [
        ("", "", None),
        ("alt=sse", "alt=sse", None),
        ("key=t", "", "t"),
        ("alt=sse&key=t", "alt=sse", "t"),
        ("key=t&$alt=sse&a=b%20c&d", "$alt=sse&a=b%20c&d", "t"),
        ("monkey=1&a=%2f", "monkey=1&a=%2f", None),
        ("k%65y=t", "", "t"),
        ("key=a%2Bb+c", "", "a+b c"),
        ("key=first&key=second", "", "first"),
        ("key=", "", ""),
    ],
)
def test_the_key_leaves_the_query_and_every_other_byte_stays(query: str, rest: str, key: str | None) -> None:
    assert without_key(query) == (rest, key)
