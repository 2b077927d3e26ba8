"""`allowedNamespaces`: whose pods may use a provider or claim a team. The same field on both resources."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from llm_sidecar.contract.rules import ContractModel, Rule, matching

_LABEL_NAME = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"

_LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=317),
    matching(
        f"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}",
        message="is not the key of a label",
        fix="write it like team or example.com/team",
    ),
]
_LabelValue = Annotated[str, Field(max_length=63, pattern="^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")]


class NamespacesFrom(StrEnum):
    """Which namespaces are meant."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(ContractModel):
    """One comparison of a label."""

    rules = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            lambda one: (one.operator in {SelectorOperator.IN, SelectorOperator.NOT_IN}) == bool(one.values),
            "In and NotIn need values, Exists and DoesNotExist have none",
            "add or remove the values",
            "values",
        ),
    )

    key: _LabelKey = Field(description="Key of the namespace's label.")
    operator: SelectorOperator = Field(description="In, NotIn, Exists or DoesNotExist.")
    values: Annotated[tuple[_LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="Values to compare with, for In and NotIn."
    )


class NamespaceSelector(ContractModel):
    """Kubernetes' label selector, on the labels of namespaces. All of it must hold; an empty one selects all."""

    match_labels: Annotated[Mapping[_LabelKey, _LabelValue], Field(max_length=16)] = Field(
        default={}, description="Labels that the namespace must have, with these values."
    )
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=16)] = Field(
        default=(), description="Comparisons that must hold, too."
    )


class AllowedNamespaces(ContractModel):
    """Whose pods may use this resource."""

    rules = (
        Rule(
            # Where the whole field is left out, the API server judges its default before it gives `from` its own.
            "(has(self.from) && self.from == 'Selector') == has(self.selector)",
            lambda allowed: (allowed.from_ is NamespacesFrom.SELECTOR) == (allowed.selector is not None),
            "from: Selector needs a selector, and no other value has one",
            "add the selector, or write from: Selector",
            "selector",
        ),
    )

    from_: NamespacesFrom = Field(
        default=NamespacesFrom.SAME,
        alias="from",
        description="Same: pods of this resource's own namespace. All: of every namespace. Selector: of namespaces "
        "with certain labels.",
    )
    selector: NamespaceSelector | None = Field(default=None, description="The namespaces' labels, for from: Selector.")
