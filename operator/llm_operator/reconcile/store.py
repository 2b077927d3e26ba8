"""What the cluster looks like, as far as the controller has heard. Plain dictionaries, changed by events and listings.

A watch may lose the deletion of an object while it is being set up again; `replace` with a fresh listing mends that,
and leaves alone what events told while the listing was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from llm_operator.kube import Document
from llm_operator.reconcile.objects import (
    Claim,
    Key,
    ObservedNamespace,
    ObservedPod,
    ObservedProvider,
    ObservedSecret,
    ObservedTeam,
    key_of,
    observed_namespace,
    observed_pod,
    observed_provider,
    observed_secret,
    observed_team,
    references,
)

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[_Value]):
    """One object before and after. None: it was not there, or is no more."""

    key: Key
    before: _Value | None
    after: _Value | None


class Table(Generic[_Value]):
    """All objects of one kind."""

    def __init__(
        self, read: Callable[[Document], _Value | None], *, group_by: Callable[[_Value], Hashable] | None = None
    ) -> None:
        self._read = read
        self._group_by = group_by
        self._groups: dict[Hashable, set[Key]] = {}
        self._values: dict[Key, _Value] = {}
        self._told: set[Key] = set()

    def get(self, key: Key) -> _Value | None:
        """One object."""
        return self._values.get(key)

    def values(self) -> Iterable[_Value]:
        """All objects."""
        return self._values.values()

    def group(self, name: Hashable) -> list[_Value]:
        """The objects of one group, in the order of their keys."""
        return [self._values[key] for key in sorted(self._groups.get(name, ()))]

    def groups(self) -> set[Hashable]:
        """Groups that have an object."""
        return set(self._groups)

    def put(self, document: Document) -> Change[_Value]:
        """An event told of an object."""
        return self._set(key_of(document), self._read(document))

    def remove(self, key: Key, *, uid: str | None = None) -> Change[_Value]:
        """An event told of a deletion; of another object than the one of this uid, if it is given, it says nothing."""
        before = self._values.get(key)
        if uid is not None and before is not None and getattr(before, "uid", uid) != uid:
            # Events of two objects, one made after the other under the same name, may come in any order.
            return Change(key=key, before=before, after=before)
        return self._set(key, None)

    def begin_listing(self) -> None:
        """From here on events know more than the listing that is now being made."""
        self._told.clear()

    def replace(self, documents: Iterable[Document], *, namespace: str | None = None) -> list[Change[_Value]]:
        """A whole listing, of all namespaces or of one."""
        listed = {key_of(document): document for document in documents}
        mine = {key for key in self._values if namespace is None or key.namespace == namespace}
        # A namespace's own listing and its own watch take turns: nothing was told in between.
        told = set(self._told) if namespace is None else set()
        changes = [self._set(key, self._read(listed[key])) for key in sorted(listed.keys() - told)]
        changes += [self._set(key, None) for key in sorted(mine - listed.keys() - told)]
        return changes

    def _set(self, key: Key, value: _Value | None) -> Change[_Value]:
        self._told.add(key)
        before = self._values.pop(key, None)
        if before is not None:
            self._leave_group(key, before)
        if value is not None:
            self._values[key] = value
            if self._group_by is not None:
                self._groups.setdefault(self._group_by(value), set()).add(key)
        return Change(key=key, before=before, after=value)

    def _leave_group(self, key: Key, value: _Value) -> None:
        if self._group_by is None:
            return
        name = self._group_by(value)
        self._groups[name].discard(key)
        if not self._groups[name]:
            del self._groups[name]


@dataclass(slots=True)
class Store:
    """Everything that was heard."""

    providers: Table[ObservedProvider] = field(default_factory=lambda: Table(observed_provider))
    teams: Table[ObservedTeam] = field(default_factory=lambda: Table(observed_team))
    namespaces: Table[ObservedNamespace] = field(default_factory=lambda: Table(observed_namespace))
    secrets: Table[ObservedSecret] = field(default_factory=lambda: Table(observed_secret))
    pods: Table[ObservedPod] = field(default_factory=lambda: Table(observed_pod, group_by=lambda pod: pod.claim))
    unreadable: set[str] = field(default_factory=set)
    """Namespaces whose Secrets the controller may not read."""
    read: set[str] = field(default_factory=set)
    """Namespaces whose labelled Secrets are known."""

    def pods_of(self, claim: Claim) -> list[ObservedPod]:
        """Running pods of a claim."""
        return self.pods.group(claim)

    def claims(self) -> set[Claim]:
        """What the running pods claim."""
        return {claim for claim in self.pods.groups() if isinstance(claim, Claim)}

    def secret_namespaces(self) -> set[str]:
        """Namespaces with an LLMProvider that needs a Secret."""
        return {provider.key.namespace for provider in self.providers.values() if references(provider)}

    def namespace(self, name: str) -> ObservedNamespace | None:
        """One namespace."""
        return self.namespaces.get(Key("", name))
