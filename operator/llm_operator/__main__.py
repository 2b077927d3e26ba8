"""The console script `llm-operator`: the controller and the webhook, each a process of its own, of one image; and what
people do to quotas.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from llm_operator import quota_arguments

_USAGE_ERROR: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two until it is told to stop. Settings come from the environment (see `settings`)."""
    parser = argparse.ArgumentParser(prog="llm-operator", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('llm-sidecar')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("controller", help="publish what teams may use, and keep the resources' status")
    commands.add_parser("webhook", help="inject the proxy into pods that ask for it")
    quota_arguments.add_parser(commands)
    chosen = parser.parse_args(arguments)
    from llm_operator.settings import InvalidSettings  # noqa: PLC0415 - `--version` needs none of it

    try:
        if chosen.command == "quota":
            return _run_quota(chosen)
        return _run_webhook() if chosen.command == "webhook" else _run_controller()
    except InvalidSettings as error:
        print(f"llm-operator: {error}", file=sys.stderr)
        return _USAGE_ERROR


def _run_controller() -> int:
    # Each process loads its own half: what the webhook imports is no use to the controller.
    from llm_operator import controller  # noqa: PLC0415
    from llm_operator.settings import Settings  # noqa: PLC0415

    settings = Settings.from_environment(os.environ)
    _log_at(settings.log_level)
    return controller.run(settings)


def _run_webhook() -> int:
    from llm_operator import webhook  # noqa: PLC0415
    from llm_operator.webhook_settings import WebhookSettings  # noqa: PLC0415

    settings = WebhookSettings.from_environment(os.environ)
    _log_at(settings.log_level)
    return webhook.run(settings)


def _run_quota(chosen: argparse.Namespace) -> int:
    from llm_operator import quota_command  # noqa: PLC0415

    return quota_command.run(chosen)


def _log_at(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # kopf tells of every event that it hands on, and of the objects themselves when it fails.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It runs in a thread, and warns that it will not handle signals there: we do.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
