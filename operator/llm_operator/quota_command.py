"""`llm-operator quota adjust`: gives a team more of a limit in its current window, or lets it count from zero again.

Who may do it is who has the Redis URL: in the controller's pod everything that it needs is at hand.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import kopf
import yaml
from pydantic import SecretStr

from llm_operator.events import event_document
from llm_operator.kube import EVENT, TEAM_QUOTA, ApiError, Kube, KubeClient
from llm_operator.quota_adjust import (
    Adjusted,
    Adjustment,
    InvalidAdjustment,
    adjust,
    find_limit,
    parse_amount,
    parse_reason,
)
from llm_operator.reconcile.objects import Key, ObservedTeam, observed_team
from llm_operator.reconcile.watches import login
from llm_operator.redis_client import REDIS_FAILURES, close_client, redis_client
from llm_operator.settings import VARIABLE_PREFIX, redis_ca_bundle, redis_url
from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.contract.resources import DEFAULT_NAMESPACE

OK: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2

SOCKET_SECONDS: Final = 5.0
WHO_CHARACTERS: Final = 200


def run(arguments: argparse.Namespace) -> int:
    """Adjust, tell, and return the exit status."""
    try:
        return asyncio.run(_run(arguments, os.environ))
    except InvalidAdjustment as error:
        _complain(str(error))
        return UNUSABLE
    except _NoAnswer as error:
        _complain(
            f"Redis did not answer ({error}); what was asked may or may not have happened. Fix: look with "
            "llm-sidecar usage, then try again"
        )
        return FAILED


class _NoAnswer(Exception):
    """Redis did not answer, or with an error. The text is the error's name: more may show the address."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the arguments say, and that it can be done."""

    adjustment: Adjustment
    redis_url: SecretStr
    redis_ca_bundle: str | None


async def _run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if arguments.filename is not None:
        adjusted = await _adjusted(_wanted(arguments, _from_file(arguments), environment))
        sys.stdout.write(f"{adjusted}\n")
        return OK
    async with _cluster() as kube:
        team = await _from_cluster(kube, _key(arguments.team))
        adjusted = await _adjusted(_wanted(arguments, team, environment))
        sys.stdout.write(f"{adjusted}\n")
        if not arguments.no_event:
            await _tell(kube, team, adjusted)
    return OK


def _wanted(arguments: argparse.Namespace, team: ObservedTeam, environment: Mapping[str, str]) -> _Wanted:
    if team.resource is None:
        raise InvalidAdjustment(f"TeamQuota {team.key}: {'; '.join(team.problems)}")
    url = SecretStr(arguments.redis) if arguments.redis else redis_url(environment)
    if url is None:
        raise InvalidAdjustment(
            f"nobody says where the counters are. Fix: give --redis URL, or set {VARIABLE_PREFIX}REDIS_URL"
        )
    spec = team.resource.spec
    limit = find_limit(spec, arguments.limit, team=str(team.key))
    adjustment = Adjustment(
        team=str(team.key),
        limit=limit,
        time_zone=spec.time_zone,
        amount=None if arguments.reset else parse_amount(limit, arguments.grant),
        who=(arguments.who or _user())[:WHO_CHARACTERS],
        reason=parse_reason(arguments.reason),
    )
    return _Wanted(adjustment, url, redis_ca_bundle(environment))


async def _adjusted(wanted: _Wanted) -> Adjusted:
    try:
        client = redis_client(wanted.redis_url, ca_bundle=wanted.redis_ca_bundle, timeout_seconds=SOCKET_SECONDS)
    except InvalidStoreURL as error:
        raise InvalidAdjustment(f"the Redis URL cannot be used: {error}") from None
    try:
        return await adjust(client, wanted.adjustment)
    except REDIS_FAILURES as error:
        raise _NoAnswer(type(error).__name__) from None
    finally:
        await close_client(client)


def _key(text: str) -> Key:
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name) or "/" in name:
        raise InvalidAdjustment(f"{text!r} names no TeamQuota. Fix: write NAMESPACE/NAME")
    return Key(namespace, name)


def _user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


# --- where the TeamQuota is


def _from_file(arguments: argparse.Namespace) -> ObservedTeam:
    wanted, path = _key(arguments.team), arguments.filename
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvalidAdjustment(f"{path}: cannot be read ({error.strerror}). Fix: check --filename") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidAdjustment(f"{path}: is not YAML. Fix: check it with llm-sidecar check -f {path}") from None
    found: dict[Key, Any] = {}
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == TEAM_QUOTA.name:
            metadata = document.setdefault("metadata", {})
            metadata.setdefault("namespace", DEFAULT_NAMESPACE)
            found[Key(str(metadata["namespace"]), str(metadata.get("name")))] = document
    if wanted not in found:
        raise InvalidAdjustment(f"{path}: there is no TeamQuota {wanted}. Fix: name one that is there: {_named(found)}")
    return observed_team(found[wanted])


async def _from_cluster(kube: Kube, wanted: Key) -> ObservedTeam:
    try:
        # Listed, because that is what the controller's own account may do.
        listing = await kube.list(TEAM_QUOTA, namespace=wanted.namespace)
    except ApiError as error:
        raise InvalidAdjustment(
            f"TeamQuotas of namespace {wanted.namespace} cannot be listed: {error}. Fix: log in to the cluster, or "
            "give the TeamQuota's file with -f"
        ) from None
    found = {team.key: team for team in map(observed_team, listing.items)}
    if wanted not in found:
        raise InvalidAdjustment(f"there is no TeamQuota {wanted}. Fix: name one of its namespace: {_named(found)}")
    return found[wanted]


def _named(keys: Mapping[Key, Any]) -> str:
    return ", ".join(str(key) for key in sorted(keys)) or "none"


@asynccontextmanager
async def _cluster() -> AsyncIterator[Kube]:
    try:
        connection = login()
    except (kopf.LoginError, OSError, yaml.YAMLError):
        raise InvalidAdjustment(
            "no cluster is known here. Fix: set KUBECONFIG, run it in the controller's pod, or give the TeamQuota's "
            "file with -f"
        ) from None
    client = KubeClient(lambda: connection)
    try:
        yield client
    finally:
        await client.close()


async def _tell(kube: Kube, team: ObservedTeam, adjusted: Adjusted) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = event_document(
        TEAM_QUOTA,
        team.key,
        uid=team.uid,
        warns=False,
        reason="QuotaAdjusted",
        message=str(adjusted),
        now=now,
        component="llm-operator",
    )
    try:
        await kube.create(EVENT, event)
    except ApiError as error:
        _complain(f"it is done and in the ledger, but no Event could be written: {error}. Use --no-event to do without")


def _complain(message: str) -> None:
    sys.stderr.write(f"llm-operator: {message}\n")
