"""`python -m tests.cluster up | down | status | kubeconfig | images | prepare`: the tests' cluster, for a person."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from typing import Final

from tests.cluster import images, packages, providers, stages
from tests.cluster.commands import ClusterError, ClusterUnavailable

_COMMANDS: Final = {
    "up": "bring the cluster up, or find it running",
    "down": "take it down, and clean up what an interrupted run left",
    "status": "tell what runs where",
    "kubeconfig": "print the path of its kubeconfig, such as for KUBECONFIG=$(...)",
    "images": "build both images; give them to the cluster where it runs",
    "prepare": "build all that the tests would wait for; where no cluster can be had, only say so",
}


def main() -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text)
    command = parser.parse_args().command
    try:
        return _prepare() if command == "prepare" else _run(command, provider=providers.choose())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(command: str, *, provider: providers.Provider) -> int:
    if command == "up":
        began = time.monotonic()
        with providers.alone():
            kubeconfig = provider.up()
        print(
            f"{provider.name} is up ({time.monotonic() - began:.0f} s: {stages.untold() or 'it was there'}). To use it:"
        )
        print(f"  export KUBECONFIG={shlex.quote(str(kubeconfig))}")
        print(f"  alias kubectl={shlex.quote(str(provider.kubectl))}")
    elif command == "down":
        with providers.alone():
            provider.down()
        print(f"{provider.name} is down")
    elif command == "status":
        print(f"{provider.name}: {'up' if provider.is_up() else 'down'}")
        print("\n".join(provider.status()))
    elif command == "kubeconfig":
        print(provider.up())
    else:
        _build_images(provider)
    return 0


def _prepare() -> int:
    """Before the tests, and not by them: of a build of many minutes somebody should see that it goes on."""
    try:
        provider = providers.choose()
    except ClusterUnavailable as reason:
        print(f"Tests on a cluster will be skipped: {reason}")
        return 0
    with providers.alone():
        provider.prepare()
        provider.helm  # noqa: B018 - built where it is missing
    _build_images(provider)
    print(f"All is there for tests on {provider.name}: {stages.untold() or 'as before'}")
    return 0


def _build_images(provider: providers.Provider) -> None:
    if isinstance(provider, providers.OneNode):
        packages.install_missing()
    builder = providers.builder()
    for name in images.IMAGES:
        with providers.alone():
            tag = images.build(name, builder=builder)
        if provider.is_up():
            provider.load(tag, builder=builder)
        print(tag)


if __name__ == "__main__":
    sys.exit(main())
