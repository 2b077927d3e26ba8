"""The console script `llm-operator`. It says plainly what this release does not contain instead of failing to start."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

NOT_IN_THIS_RELEASE: Final = (
    "The controller and the webhook are not part of this release: "
    "run the proxy without a cluster by `llm-sidecar run`, and validate manifests by `llm-sidecar check`."
)

_USAGE_ERROR: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer `--version` and `--help`; refuse anything else with exit code 2."""
    parser = argparse.ArgumentParser(prog="llm-operator", description=NOT_IN_THIS_RELEASE)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('llm-sidecar')}")
    parser.parse_known_args(arguments)
    print(NOT_IN_THIS_RELEASE, file=sys.stderr)
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
