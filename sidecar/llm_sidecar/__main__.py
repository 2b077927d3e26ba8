"""The command `llm-sidecar`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from llm_sidecar import __version__

COMMANDS: Final = ("run", "serve", "check", "explain", "simulate", "usage", "cache")
"""Each is a module of `llm_sidecar.commands`."""


PROXIES: Final = ("run", "serve")
"""The commands that are a proxy's whole process."""


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """These commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="llm-sidecar", description="A localhost proxy that gives unchanged LLM SDKs quotas, caching and failover."
    )
    parser.add_argument("--version", action="version", version=f"llm-sidecar {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in commands:
        import_module(f"llm_sidecar.commands.{command}").add_parser(subparsers)
    return parser


def _start_lean() -> None:
    """What a process that will only ever be a proxy can leave out, before anything is imported."""
    gc.disable()  # importing makes hardly any garbage, and looking for it takes a fifth of the time; `app` enables it
    # Looking for plugins would read the metadata of everything that is installed; there are none for us.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    import_module("llm_sidecar.plain_aiohttp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    # Only what will run is imported: the simulator, say, must cost no memory in a pod.
    chosen = words[:1] if words and words[0] in COMMANDS else COMMANDS
    if chosen[0] in PROXIES and len(chosen) == 1:
        _start_lean()
    parsed = build_parser(chosen).parse_args(words)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
