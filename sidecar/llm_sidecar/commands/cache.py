"""`llm-sidecar cache purge`: cached answers that must not be served any more."""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.keys import NO_TEAM

if TYPE_CHECKING:
    from llm_sidecar.cache.purge import Purge

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

OK: Final = 0
UNUSABLE: Final = 2
_IDENTITY: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_AGE: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "cache",
        help="purge cached answers",
        description="purge: cached answers of a team are served no more, from now on and by no proxy, also those that "
        "are still under way. A proxy's own memory may serve them for two seconds longer. Without further "
        "arguments: all of the team's.",
    )
    parser.add_argument("action", choices=("purge",))
    parser.add_argument(
        "--team",
        dest="teams",
        metavar="NAMESPACE/NAME",
        type=_team,
        required=True,
        action="append",
        help=f"whose answers; may be repeated. {NO_TEAM}: those of pods without a TeamQuota",
    )
    parser.add_argument("--provider", metavar="NAMESPACE/NAME", type=_identity, help="only answers of this LLMProvider")
    parser.add_argument("--model", metavar="NAME", help="only answers of this model of the provider, as it calls it")
    parser.add_argument("--older-than", metavar="AGE", type=_age, help="only answers older than 90, 90s, 15m, 12h, 7d")
    parser.add_argument("--key", metavar="KEY", type=_digest, help="only this answer: cache_key in the audit log")
    parser.add_argument("--redis", metavar="URL", help="the store (default: of the `llm-sidecar run` that runs here)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Purge, and return the exit status."""
    from llm_sidecar.commands.usage_source import NoSource  # noqa: PLC0415 - only this command needs it
    from llm_sidecar.store import StoreUnavailable  # noqa: PLC0415

    problem = _contradiction(arguments)
    if problem:
        sys.stderr.write(f"{problem}\n")
        return UNUSABLE
    try:
        return asyncio.run(_purge(arguments))
    except NoSource as error:
        sys.stderr.writelines(f"{line}\n" for line in error.lines)
    except StoreUnavailable as error:
        sys.stderr.write(f"the store cannot be asked ({error.reason}). Fix: check its URL, and that it runs\n")
    return UNUSABLE


def _contradiction(arguments: argparse.Namespace) -> str:
    if arguments.model is not None and arguments.provider is None:
        return "--model needs --provider: models of two providers may have one name. Fix: name the provider"
    ways = [arguments.provider is not None, arguments.older_than is not None, arguments.key is not None]
    if sum(ways) > 1:
        return "--provider, --older-than and --key cannot be combined. Fix: purge by one of them, or one by one"
    return ""


def _asked_for(arguments: argparse.Namespace) -> Purge:
    from llm_sidecar.cache.purge import Purge  # noqa: PLC0415 - only this command needs it

    return Purge(
        provider=arguments.provider,
        model=arguments.model,
        not_before=None if arguments.older_than is None else math.ceil(time.time()) - arguments.older_than,
        digest=arguments.key,
    )


async def _purge(arguments: argparse.Namespace) -> int:
    from llm_sidecar.cache.purge import purge  # noqa: PLC0415 - only this command needs it
    from llm_sidecar.commands.usage_source import Source, running_store  # noqa: PLC0415

    store = await Source((), arguments.redis or running_store()).connected()
    what = _asked_for(arguments)
    try:
        for team in arguments.teams:
            await purge(store, team, what)
            sys.stdout.write(f"{team}: purged {_words(arguments)}\n")
    finally:
        await store.close()
    return OK


def _words(arguments: argparse.Namespace) -> str:
    if arguments.key is not None:
        return f"the answer {arguments.key}"
    if arguments.older_than is not None:
        return f"all answers older than {arguments.older_than} s"
    if arguments.provider is not None:
        return f"all answers of {arguments.provider}" + (f", {arguments.model}" if arguments.model else "")
    return "all answers"


def _team(text: str) -> str:
    return text if text == NO_TEAM else _identity(text)


def _identity(text: str) -> str:
    if _IDENTITY.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAMESPACE/NAME, such as payments/default")
    return text


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no key of the cache: 64 digits, `cache_key` in the audit log")
    return text


def _age(text: str) -> int:
    found = _AGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write it like 90, 90s, 15m, 12h or 7d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]
