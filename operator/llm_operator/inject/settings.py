"""What whoever installs the product decides about every injected proxy. The chart's values end up here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionSettings:
    """Settings of the webhook. Amounts are Kubernetes quantities; None leaves a field away."""

    image: str
    """As a pod names it: best by digest. It must be what other webhooks leave alone, mirrors included."""
    version: str
    """Told in the pod's `status` annotation."""
    image_pull_policy: str = "IfNotPresent"
    run_as_user: int | None = None
    """None: the image's own numeric user. OpenShift picks one by itself and refuses any other."""
    cpu_request: str = "50m"
    cpu_limit: str | None = None
    """None: a limit throttles, and every call of the app waits for that."""
    memory_request: str = "96Mi"
    memory_limit: str = "256Mi"
    guaranteed_cpu: str = "500m"
    """Request and limit where all others of the pod have equal ones and no option says otherwise.

    Half a core, because the proxy starts before the app does and needs about a second of processor time for it."""
    log_level: str = "info"
    require_quota: bool = True
    """Refuse a pod without a TeamQuota, instead of letting it use the providers unlimited."""
