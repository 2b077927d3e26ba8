"""Who may talk to the proxy: programs on this machine that hold the token. Never a web page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from typing import Final
from urllib.parse import unquote_plus

from llm_sidecar.errors import CrossSiteRequest, WrongPodToken

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what a browser sends for a page: by name rebinding (a foreign Host) or across sites.

    Raises `CrossSiteRequest`.
    """
    host = headers.get("Host", "")
    if host.rsplit(":", 1)[0].lower() not in LOOPBACK_HOSTS and host.lower() not in LOOPBACK_HOSTS:
        raise CrossSiteRequest(
            "the proxy answers only requests to a loopback host: use http://127.0.0.1 in the SDK's base URL"
        )
    if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise CrossSiteRequest(
            "the request comes from a web page (it has an Origin or a cross-site Sec-Fetch-Site header): "
            "pages must not spend a team's budget; call from a program"
        )


class TokenGuard:
    """Accepts only the token made for this pod, wherever an SDK puts its key."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token is not None else None

    def check(self, headers: Mapping[str, str], query_key: str | None) -> None:
        """Raises `WrongPodToken`, naming the environment variable to look at."""
        if self._token is None:
            return
        bearer = headers.get("Authorization", "")
        presented = bearer[7:] if bearer[:7].lower() == "bearer " else ""
        if self._is_token(presented):
            return
        # An SDK may send two: Anthropic's adds an ANTHROPIC_AUTH_TOKEN of the application's own to our key.
        others = (headers.get("x-api-key", ""), headers.get("x-goog-api-key", ""), query_key or "")
        if not any(self._is_token(other) for other in others):
            raise WrongPodToken(_advice(headers, presented=bool(presented or any(others))))

    def _is_token(self, presented: str) -> bool:
        return self._token is not None and compare_digest(presented.encode("utf-8", "surrogateescape"), self._token)


def _advice(headers: Mapping[str, str], *, presented: bool) -> str:
    if "x-goog-api-key" in headers:
        variables = "GEMINI_API_KEY and GOOGLE_API_KEY"
    elif "x-api-key" in headers or "anthropic-version" in headers:
        variables = "ANTHROPIC_API_KEY"
    else:
        variables = "OPENAI_API_KEY (ANTHROPIC_API_KEY, GEMINI_API_KEY for the other SDKs)"
    what = "is not the token of this proxy" if presented else "is missing"
    return (
        f"the API key of this request {what}: let the SDK read {variables} from the environment, where the token "
        "stands, and pass no key of its own in code"
    )


def without_key(query: str) -> tuple[str, str | None]:
    """The query without `key=`, and that key: Google's SDKs of old put it there, and it must reach no log."""
    if "key=" not in query and "%" not in query:
        return query, None
    key: str | None = None
    kept: list[str] = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote_plus(name) == "key":
            key = unquote_plus(value) if key is None else key
        else:
            kept.append(pair)
    return "&".join(kept), key
