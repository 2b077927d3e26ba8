"""Who may claim a team: `TeamQuota.spec.allowedNamespaces`. The webhook asks at admission, the controller again.

What cannot be understood (a later version's field, a broken selector) admits nobody: a claim opens a team's keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def may_claim(team: Mapping[str, Any], *, namespace: str, namespace_labels: Mapping[str, str]) -> bool:
    """True if pods of `namespace` may claim the team of this TeamQuota (the whole resource)."""
    spec = team.get("spec") or {}
    allowed = spec.get("allowedNamespaces") or {}
    home = (team.get("metadata") or {}).get("namespace")
    return admits(allowed, home=home, namespace=namespace, namespace_labels=namespace_labels)


def admits(
    allowed: Mapping[str, Any], *, home: str | None, namespace: str, namespace_labels: Mapping[str, str]
) -> bool:
    """What an `allowedNamespaces` says of a namespace; `home` is the namespace of the resource that holds it."""
    match allowed.get("from", "Same"):
        case "Same":
            return home is not None and namespace == home
        case "All":
            return True
        case "Selector":
            selector = allowed.get("selector")
            return isinstance(selector, Mapping) and selects(selector, labels=namespace_labels)
        case _:
            return False


def selects(selector: Mapping[str, Any], *, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector: all of it must hold; an empty one selects everything."""
    if selector.keys() - {"matchLabels", "matchExpressions"}:
        return False
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not isinstance(wanted, Mapping) or not isinstance(expressions, list):
        return False
    return all(key in labels and labels[key] == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


_UNUSABLE: Final = object()


def _holds(expression: Any, labels: Mapping[str, str]) -> bool:
    if not isinstance(expression, Mapping):
        return False
    key, values = expression.get("key", _UNUSABLE), expression.get("values") or []
    if not isinstance(key, str) or not isinstance(values, list):
        return False
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            # Without values it would select everything; the API server refuses such a selector.
            return bool(values) and labels.get(key) not in values
        case "Exists":
            return not values and key in labels
        case "DoesNotExist":
            return not values and key not in labels
        case _:
            return False
