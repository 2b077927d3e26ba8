"""Errors that the application may receive from the proxy itself.

    SidecarError
    ├── RequestRefused                the request never left the pod
    │   ├── MalformedHTTP             400 malformed_http
    │   ├── MalformedBody             400 malformed_request
    │   ├── WrongPodToken             401 wrong_pod_token
    │   ├── CrossSiteRequest          403 cross_site_request
    │   ├── EndpointNotAllowed        403 endpoint_not_allowed
    │   ├── TeamNotAllowed            403 team_not_allowed
    │   ├── ModelNotAllowed           403 model_not_allowed
    │   ├── UnknownModel              404 model_not_found
    │   ├── UnknownRequest            404 request_not_found
    │   ├── MethodNotAllowed          405 method_not_allowed
    │   ├── BodyTooSlow               408 body_timeout
    │   ├── BodyTooLarge              413 body_too_large
    │   ├── UnsupportedEncoding       415 unsupported_content_encoding
    │   ├── TeamQuotaExceeded         429 team_quota_exceeded
    │   ├── QuotaStoreUnavailable     503 quota_store_unavailable
    │   ├── Overloaded                503 sidecar_overloaded
    │   ├── NotCached                 504 not_cached
    │   └── WebSocketsNotSupported    501 websockets_not_supported
    ├── NoProviderAvailable           503 no_provider_available: every attempt failed
    └── InternalError                 500 sidecar_internal_error: a defect of ours

Each knows its status, its stable code and whether waiting a little can help. Messages are written for the person who
reads them in the application's log. They name objects and fields, never a provider key, an internal address or a
prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

BRIEF_WAIT_MILLISECONDS: Final = 10_000
"""Up to here, an SDK's own retry after `retry-after` is worth its while."""


class SidecarError(Exception):
    """Anything that the proxy answers by itself instead of relaying a provider's answer."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "sidecar_internal_error"
    should_retry: bool | None = None
    """What `x-should-retry` tells the SDK; None leaves the SDK to its own rules."""

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_milliseconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_milliseconds = retry_after_milliseconds


class RequestRefused(SidecarError):
    """The request never left the pod. Sending it again as it is gives the same answer, unless a subclass says so."""

    should_retry = False


class MalformedHTTP(RequestRefused):
    """What came is not a request at all."""

    status = 400
    code = "malformed_http"


class MalformedBody(RequestRefused):
    """The body is not what this API takes."""

    status = 400
    code = "malformed_request"


class WrongPodToken(RequestRefused):
    """The request carries no token, or not the one that was made for this pod."""

    status = 401
    code = "wrong_pod_token"


class CrossSiteRequest(RequestRefused):
    """A browser sent the request on behalf of some page: a page must not spend the team's budget."""

    status = 403
    code = "cross_site_request"


class EndpointNotAllowed(RequestRefused):
    """The path is not one that the proxy serves, and no provider lists it in `passthroughPaths`."""

    status = 403
    code = "endpoint_not_allowed"


class TeamNotAllowed(RequestRefused):
    """The pod's team does not admit its namespace, or not any more."""

    status = 403
    code = "team_not_allowed"


class ModelNotAllowed(RequestRefused):
    """The team's `models.allow` or `models.deny` forbids the model."""

    status = 403
    code = "model_not_allowed"


class UnknownModel(RequestRefused):
    """No provider of this team serves the model in the API that was called."""

    status = 404
    code = "model_not_found"


class UnknownRequest(RequestRefused):
    """`explain` was asked for a request that is not remembered."""

    status = 404
    code = "request_not_found"


class MethodNotAllowed(RequestRefused):
    """The path exists, with another method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class BodyTooSlow(RequestRefused):
    """The application stopped sending its request half-way."""

    status = 408
    code = "body_timeout"


class BodyTooLarge(RequestRefused):
    """The body is larger than `maxBodyBytes`."""

    status = 413
    code = "body_too_large"


class UnsupportedEncoding(RequestRefused):
    """The body is compressed. None of the three APIs documents compressed requests."""

    status = 415
    code = "unsupported_content_encoding"


class TeamQuotaExceeded(RequestRefused):
    """A limit of the team's TeamQuota leaves no room. `retry-after` tells when its window ends."""

    status = 429
    code = "team_quota_exceeded"


class QuotaStoreUnavailable(RequestRefused):
    """Redis is away and the team's `onStoreUnavailable` is `Deny`."""

    status = 503
    code = "quota_store_unavailable"
    should_retry = True


class Overloaded(RequestRefused):
    """Requests and answers in progress hold `maxBufferedBytes` together; another one would exceed it."""

    status = 503
    code = "sidecar_overloaded"
    should_retry = True


class NotCached(RequestRefused):
    """The application wants a cached answer or none (`Cache-Control: only-if-cached`), and there is none."""

    status = 504
    code = "not_cached"


class WebSocketsNotSupported(RequestRefused):
    """The realtime APIs speak WebSocket, which the proxy does not."""

    status = 501
    code = "websockets_not_supported"


class NoProviderAvailable(SidecarError):
    """Every provider that serves the model failed, or none is configured for the request."""

    status = 503
    code = "no_provider_available"


class InternalError(SidecarError):
    """A defect of the proxy. The log has the traceback under the request's id."""

    should_retry = False
