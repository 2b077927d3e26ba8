"""From an AdmissionReview's bytes to the answer's: no sockets, no clock but for measuring, no call to the API server.

kopf's own admission answers with a difference that it makes from the changed body, and allows what comes to a path
that it does not know: a pod would start without its proxy, and nobody would hear of it. So reviews are answered here,
with exactly the patch that `inject()` made, and kopf only watches.

The API server always gets an answer that it understands. Where something is wrong on our side, a pod that asked for
the proxy is refused: it could not reach its providers without, and its ReplicaSet tries again by itself, while a pod
that was let through stays broken. A pod that did not ask is never held up.
"""

from __future__ import annotations

import base64
import json
import logging
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_operator.inject import Inject, InjectionSettings, Refuse, Skip, TeamLookup, decide, inject, new_token, wire
from llm_operator.inject.options import OptIn, opt_in
from llm_operator.inject.pod import annotations_of
from llm_operator.webhook_metrics import AdmissionResult, WebhookMetrics
from llm_operator.workloads import workload_warnings

INJECT_PATH: Final = "/inject"
WARN_PATH: Final = "/warn"

_MOST_WARNING_CHARACTERS: Final = 120
"""What Kubernetes asks for; kubectl shows each warning on a line of its own."""
_MOST_WARNINGS_CHARACTERS: Final = 4000
"""The API server cuts them off at 4096 bytes in all."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP."""

    status: int
    document: Mapping[str, Any]

    @property
    def body(self) -> bytes:
        """The document as it goes over the wire."""
        return json.dumps(self.document, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The part of an AdmissionReview that we read."""

    api_version: str
    uid: str
    """Also the request id of our messages and log lines: the API server's audit log has the same one."""
    kind: str
    operation: str
    namespace: str
    object: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one review comes to."""

    result: AdmissionResult
    reason: str
    """From a closed table: it is a metric's label."""
    message: str = ""
    """Told to whoever made the object, where it is refused."""
    code: int = 200
    patch: bytes = b""
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    """For the log line."""


class Admission:
    """Answers reviews, given what is known of the cluster."""

    def __init__(
        self,
        *,
        teams: TeamLookup,
        settings: InjectionSettings,
        metrics: WebhookMetrics,
        token: Callable[[], str] = new_token,
    ) -> None:
        self._teams = teams
        self._settings = settings
        self._metrics = metrics
        self._token = token

    def answer(self, path: str, body: bytes) -> Reply:
        """The answer to what was posted to `path`. Never raises."""
        with self._metrics.admission_duration.time():
            try:
                review = _read(body)
            except ValueError as error:
                self._metrics.count(AdmissionResult.FAILED, "MalformedReview")
                return refusal(400, f"this is no AdmissionReview that llm-sidecar's webhook can read: {error}")
            verdict = self._guarded(path, review)
        self._metrics.count(verdict.result, verdict.reason)
        _tell(review, verdict)
        return Reply(200, _document(review, verdict))

    def _guarded(self, path: str, review: Review) -> Verdict:
        try:
            return self._verdict(path, review)
        except Exception as error:  # noqa: BLE001 - a webhook that fails without a word stops deployments
            # Only where it happened: the message of an exception may quote the pod, and so its keys.
            frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
            _log.error("defect in request %s: %s\n%s", review.uid, type(error).__name__, frames)
            return _defect(path, review)

    def _verdict(self, path: str, review: Review) -> Verdict:
        match path:
            case "/inject":
                return self._injection(review)
            case "/warn":
                found = workload_warnings(
                    review.object,
                    kind=review.kind,
                    namespace=review.namespace,
                    teams=self._teams,
                    settings=self._settings,
                )
                return Verdict(result=AdmissionResult.SKIPPED, reason="Workload", warnings=found)
            case _:
                message = (
                    f"llm-sidecar's webhook answers at {INJECT_PATH} and {WARN_PATH}, not at the path that it was "
                    "called at: correct clientConfig.service.path of the webhook configuration"
                )
                return Verdict(result=AdmissionResult.FAILED, reason="UnknownPath", message=message, code=404)

    def _injection(self, review: Review) -> Verdict:
        if review.kind != "Pod":
            message = f"{INJECT_PATH} takes pods alone: correct the rules of the webhook configuration"
            return Verdict(result=AdmissionResult.FAILED, reason="NotAPod", message=message, code=400)
        if review.operation != "CREATE":
            # What runs already cannot be given a container; to refuse would only hold up its update or deletion.
            warning = "llm-sidecar injects pods when they are created: set operations: [CREATE] in its webhook"
            return Verdict(result=AdmissionResult.SKIPPED, reason="NotCreated", warnings=(warning,))
        decision = decide(review.object, namespace=review.namespace, teams=self._teams, settings=self._settings)
        match decision:
            case Skip():
                return Verdict(result=AdmissionResult.SKIPPED, reason=decision.reason, warnings=decision.warnings)
            case Refuse():
                return Verdict(
                    result=AdmissionResult.REFUSED,
                    reason=decision.reason,
                    message=decision.message,
                    code=403,
                    warnings=decision.warnings,
                )
            case Inject():
                return Verdict(
                    result=AdmissionResult.INJECTED,
                    reason="Injected",
                    patch=wire(inject(review.object, decision, token=self._token())),
                    warnings=decision.warnings,
                    details={"team": str(decision.team)},
                )


def refusal(code: int, message: str) -> Reply:
    """The answer where no review could be read, and so no uid repeated: an error that the API server passes on."""
    reason = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}
    return Reply(
        code,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason.get(code, "InternalError"),
            "code": code,
        },
    )


def _read(body: bytes) -> Review:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is not JSON, or nested too deeply") from error
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise ValueError("kind must be AdmissionReview")
    if document.get("apiVersion") != "admission.k8s.io/v1":
        raise ValueError("apiVersion must be admission.k8s.io/v1: set admissionReviewVersions: [v1]")
    request = document.get("request")
    if not isinstance(request, dict):
        raise ValueError("request must be an object")  # noqa: TRY004 - a document is wrong, no argument
    kind = request.get("kind")
    return Review(
        api_version=document["apiVersion"],
        uid=_text(request, "uid"),
        kind=_text(kind if isinstance(kind, dict) else {}, "kind", "request.kind."),
        operation=_text(request, "operation"),
        namespace=_text(request, "namespace") if request.get("namespace") is not None else "",
        object=request.get("object"),
    )


def _text(document: Mapping[str, Any], key: str, prefix: str = "request.") -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{prefix}{key} must be text")  # noqa: TRY004 - the same
    return value


def _defect(path: str, review: Review) -> Verdict:
    result, reason = AdmissionResult.FAILED, "Defect"
    if path == WARN_PATH or not _asks(review):
        warning = f"llm-sidecar could not check this {review.kind[:40]} (request {review.uid[:40]})"
        return Verdict(result=result, reason=reason, warnings=(warning,))
    message = (
        "llm-sidecar could not inject its proxy into this pod, because of a defect of its own; the pod is as good as "
        f"it was. Look for request {review.uid} in the webhook's log and report it. To run the pod without the proxy "
        "meanwhile, remove the annotation llm-sidecar.io/inject from its template"
    )
    return Verdict(result=result, reason=reason, message=message, code=500)


def _asks(review: Review) -> bool:
    if review.kind != "Pod" or review.operation != "CREATE" or not isinstance(review.object, dict):
        return False
    return opt_in(annotations_of(review.object)) not in (OptIn.ABSENT, OptIn.NO)


def _document(review: Review, verdict: Verdict) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": review.uid, "allowed": not verdict.message}
    if verdict.message:
        reason = {403: "Forbidden", 404: "NotFound", 400: "BadRequest"}.get(verdict.code, "InternalError")
        response["status"] = {
            "status": "Failure",
            "message": verdict.message,
            "reason": reason,
            "code": verdict.code,
        }
    if verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(verdict.patch).decode()
    warnings = _short(verdict.warnings)
    if warnings:
        response["warnings"] = warnings
    return {"apiVersion": review.api_version, "kind": "AdmissionReview", "response": response}


def _short(warnings: Iterable[str]) -> list[str]:
    """The warnings, those that are too long on several lines: cut off, they would lose the fix at their end."""
    lines: list[str] = []
    left = _MOST_WARNINGS_CHARACTERS
    for warning in dict.fromkeys(warnings):
        wrapped = textwrap.wrap(warning, _MOST_WARNING_CHARACTERS, subsequent_indent="… ", break_on_hyphens=False)
        left -= sum(len(line.encode()) for line in wrapped)
        if left < 0:
            return [*lines, "there are more warnings of llm-sidecar about this object"]
        lines += wrapped
    return lines


def _tell(review: Review, verdict: Verdict) -> None:
    """One line for each pod that asked. Never a pod's content."""
    if verdict.result is AdmissionResult.SKIPPED:
        return
    metadata = review.object.get("metadata") if isinstance(review.object, dict) else None
    names = metadata if isinstance(metadata, dict) else {}
    told = {
        "namespace": review.namespace,
        "name": str(names.get("name") or names.get("generateName") or "")[:253],
        "reason": verdict.reason,
        **verdict.details,
        "request": review.uid,
    }
    _log.info("%s %s", verdict.result, " ".join(f"{key}={value}" for key, value in told.items()))
