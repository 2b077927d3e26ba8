"""Which teams `llm-sidecar usage` speaks of, and where their counters are: from its arguments."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
from dataclasses import dataclass, field
from typing import Final

from llm_sidecar.contract.config import ConfigDocument, ConfigRefused
from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.embedded_store import running_stores
from llm_sidecar.manifest_files import Unreadable
from llm_sidecar.manifests import load
from llm_sidecar.providers.factory import LLMProviderFactory
from llm_sidecar.published_config import PublishedConfig
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.reload import UnreadableSource
from llm_sidecar.store import SharedStore, StoreUnavailable

TIMEOUT_SECONDS: Final = 5.0
"""Nobody's request waits for it."""


class NoSource(Exception):
    """The arguments lead to no team, or to no store. Each line says what to do."""

    def __init__(self, *lines: object) -> None:
        self.lines = tuple(str(line) for line in lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True, slots=True)
class TeamSource:
    """One team."""

    label: str
    """`NAMESPACE/NAME`."""
    spec: TeamQuotaSpec


@dataclass(frozen=True, slots=True)
class Source:
    """What to ask, and whom."""

    teams: tuple[TeamSource, ...]
    url: str = field(repr=False)
    ca_bundle: str | None = None
    """PEM of the authorities to trust."""

    async def connected(self) -> SharedStore:
        """The store. Raises `NoSource` and `StoreUnavailable`."""
        try:
            store = make_store(self.url, ca_bundle=self.ca_bundle, timeout_seconds=TIMEOUT_SECONDS)
        except InvalidStoreURL as error:
            raise NoSource(f"--redis: {error}") from None
        if not await store.connect():
            reason = store.reason or "connection"
            await store.close()
            raise StoreUnavailable(reason)
        return store


def find_source(arguments: argparse.Namespace) -> Source:
    """Read what the arguments name. Raises `NoSource`."""
    if arguments.config is None:
        return Source(_chosen(arguments, _from_files(arguments)), arguments.redis or running_store())
    document = _config(arguments)
    found = [TeamSource(document.team.label, document.team.spec)] if document.team is not None else []
    store = document.store
    url = arguments.redis or (store.url.get_secret_value() if store.url is not None else running_store())
    return Source(_chosen(arguments, found), url, store.ca_bundle)


def user() -> str:
    """Who runs this, for the ledger."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _chosen(arguments: argparse.Namespace, found: list[TeamSource]) -> tuple[TeamSource, ...]:
    wanted = tuple(team for team in found if arguments.team in {None, team.label})
    if not wanted:
        names = ", ".join(team.label for team in found) or "none"
        raise NoSource(f"there is no TeamQuota {arguments.team or ''}".rstrip() + f". Fix: name one of these: {names}")
    return wanted


def _config(arguments: argparse.Namespace) -> ConfigDocument:
    try:
        return PublishedConfig(arguments.config).load()
    except UnreadableSource as error:
        raise NoSource(error) from None
    except ConfigRefused as refused:
        raise NoSource(*refused.problems) from None


def _from_files(arguments: argparse.Namespace) -> list[TeamSource]:
    if not arguments.paths:
        if arguments.team and arguments.action is not None:
            return [TeamSource(arguments.team, TeamQuotaSpec())]  # the ledger needs no limits
        raise NoSource(
            "the limits are in the TeamQuota. Fix: name its file with -f, or a config document with --config"
        )
    try:
        manifests = load(arguments.paths, known_types=LLMProviderFactory.types())
    except Unreadable as error:
        raise NoSource(error) from None
    found = {read.value.identity for read in manifests.team_quotas}
    if manifests.errors and (not found or arguments.team not in {None, *found}):
        raise NoSource(*manifests.errors)  # the TeamQuota that is missing may be the one that breaks a rule
    return [TeamSource(read.value.identity, read.value.spec) for read in manifests.team_quotas]


def running_store() -> str:
    """The store of the only `llm-sidecar run` here. Raises `NoSource`."""
    found = running_stores()
    if len(found) == 1:
        return found[0]
    if found:
        raise NoSource("several `llm-sidecar run` have a store here. Fix: give one of them with --redis:", *found)
    raise NoSource("no store is known. Fix: give --redis URL, or the --config of a pod; or start llm-sidecar run here")
