"""`llm-sidecar serve`: the proxy in a pod, from the config document that the operator publishes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llm_sidecar.commands.arguments import port_number
from llm_sidecar.contract.names import ADMIN_PORT, PROXY_PORT, TOKEN_VARIABLE

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a pod from a config document",
        description="Serve from the config document that the operator publishes. The file is watched. "
        f"The pod's token is read from {TOKEN_VARIABLE}.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the config document")
    parser.add_argument(
        "--port", type=port_number, default=PROXY_PORT, help="the proxy's port on 127.0.0.1 (%(default)s)"
    )
    parser.add_argument(
        "--admin-port", type=port_number, default=ADMIN_PORT, help="port of /metrics, /healthz, /readyz (%(default)s)"
    )
    parser.add_argument(
        "--admin-host",
        default="0.0.0.0",  # noqa: S104 - Prometheus comes from outside the pod
        help="address of the admin port (%(default)s)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="folder for what must survive a restart: usage that the Redis has not heard of (default: kept in memory)",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit status."""
    from llm_sidecar.commands.running import REFUSED, explain, run_loop, set_up_log  # noqa: PLC0415 - only here

    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        explain(f"{TOKEN_VARIABLE} is not set: without a token every container of the pod could spend the quota")
        return REFUSED
    set_up_log(arguments.log_level)
    return run_loop(lambda: _serve(arguments, token))


async def _serve(arguments: argparse.Namespace, token: str) -> int:
    from llm_sidecar.app import Sidecar  # noqa: PLC0415
    from llm_sidecar.commands.running import REFUSED, load_or_explain, serve_until_told  # noqa: PLC0415
    from llm_sidecar.published_config import PublishedConfig  # noqa: PLC0415

    source = PublishedConfig(arguments.config)
    document = load_or_explain(source)
    if document is None:
        return REFUSED
    return await serve_until_told(
        source,
        Sidecar(document, token=token, state_directory=arguments.state_dir),
        port=arguments.port,
        admin_port=arguments.admin_port,
        admin_host=arguments.admin_host,
        announce=lambda _listening: None,
    )
