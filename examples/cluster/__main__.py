"""`python -m examples.cluster`: the operator on a real Kubernetes, from images to answers (`make demo-cluster`)."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time

from examples.cluster.screen import Screen
from examples.cluster.stage import SYSTEM, TEAM, DemoFailed, Stage, cluster_for_demo
from examples.cluster.story import Story
from tests.cluster.commands import ClusterError

FAILED = 1
INTERRUPTED = 130


def main() -> int:
    """Run the demo; returns its exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if arguments.end:
            _end()
        else:
            _run(stays=arguments.stay)
    except (ClusterError, DemoFailed) as failure:
        sys.stderr.write(f"demo: failed: {failure}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("demo: stopped\n")
        return INTERRUPTED
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo-cluster", description="The operator on a real Kubernetes.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stay", action="store_true", help="leave all of it running")
    what.add_argument("--end", action="store_true", help="remove what --stay has left")
    return parser.parse_args()


def _run(*, stays: bool) -> None:
    screen, began = Screen(), time.monotonic()
    screen.heading("A Kubernetes, the images, and the chart")
    screen.command("make cluster-up images")
    with cluster_for_demo(stays=stays) as cluster:
        stage = Stage(cluster=cluster, screen=screen)
        names = stage.build()
        screen.note(f"{cluster.provider.name} is up, with {', '.join(names.values())}")
        try:
            stage.install(names)
            screen.note(f"Both Deployments are ready, {time.monotonic() - began:.0f} s after the start.")
            Story(stage=stage, names=names).tell()
        except DemoFailed:
            # Nothing here is the demo's.
            raise
        except BaseException:
            stage.remove()
            raise
        if stays:
            _tell_how_to_go_on(stage)
            return
        stage.remove()
    screen.heading(f"Done in {time.monotonic() - began:.0f} s; what the demo made is gone.")


def _end() -> None:
    with cluster_for_demo(stays=True) as cluster:
        Stage(cluster=cluster, screen=Screen()).remove()


def _tell_how_to_go_on(stage: Stage) -> None:
    stage.screen.heading("Still running. In another shell:")
    stage.screen.output(f"  export KUBECONFIG={shlex.quote(str(stage.cluster.kubeconfig))}")
    stage.screen.output(f"  alias kubectl={shlex.quote(str(stage.cluster.provider.kubectl))}")
    stage.screen.output(f"  kubectl logs deployment/assistant --namespace {TEAM} --follow")
    stage.screen.output(f"  kubectl describe llmproviders --namespace {SYSTEM}")
    stage.screen.output("To end it: make demo-cluster ARGS=--end, and make cluster-down for the cluster itself.")


if __name__ == "__main__":
    sys.exit(main())
