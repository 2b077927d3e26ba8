"""The command `llm-sidecar`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llm_sidecar import __version__
from llm_sidecar.commands import check, run, serve, simulate


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="llm-sidecar", description="A localhost proxy that gives unchanged LLM SDKs quotas, caching and failover."
    )
    parser.add_argument("--version", action="version", version=f"llm-sidecar {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (run, serve, check, simulate):
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parsed = build_parser().parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
