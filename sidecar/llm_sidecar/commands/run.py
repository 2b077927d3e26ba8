"""`llm-sidecar run`: the proxy on this machine, from the same manifests as in a cluster."""

from __future__ import annotations

import argparse
import secrets
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from llm_sidecar.commands.arguments import port_number, store_url, token
from llm_sidecar.contract.names import ADMIN_PORT, PROXY_PORT

if TYPE_CHECKING:
    from llm_sidecar.app import Listening

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command's arguments."""
    parser = subparsers.add_parser(
        "run",
        help="run the proxy on this machine, without a cluster",
        description="Serve one team from LLMProvider, TeamQuota and Secret manifests. All their namespaces count as "
        "shared. The files are watched: an edit takes effect within two seconds.",
    )
    parser.add_argument(
        "-f",
        "--filename",
        dest="paths",
        metavar="FILE_OR_DIR",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="YAML or JSON files, or folders of them; may be repeated",
    )
    parser.add_argument("--team", metavar="[NAMESPACE/]NAME", help="the TeamQuota to serve, where there are several")
    parser.add_argument(
        "--port", type=port_number, default=PROXY_PORT, help="the proxy's port on 127.0.0.1 (%(default)s)"
    )
    parser.add_argument(
        "--admin-port", type=port_number, default=ADMIN_PORT, help="port of /metrics, /healthz, /readyz (%(default)s)"
    )
    parser.add_argument(
        "--redis",
        metavar="URL",
        type=store_url,
        help="the shared Redis or Valkey (default: one of its own, kept in memory)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="folder for what must survive a restart: usage that the Redis has not heard of (default: kept in memory)",
    )
    guard = parser.add_mutually_exclusive_group()
    guard.add_argument(
        "--token", type=token, help="what SDKs must present as their API key (default: a random one, printed)"
    )
    guard.add_argument("--no-token", action="store_true", help="serve every program on this machine")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning", help="(%(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; returns the exit status."""
    from llm_sidecar.commands.running import run_loop, set_up_log  # noqa: PLC0415 - only this command needs it

    set_up_log(arguments.log_level)
    return run_loop(lambda: _serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    from llm_sidecar.app import Sidecar  # noqa: PLC0415
    from llm_sidecar.commands.running import REFUSED, explain, load_or_explain, serve_until_told  # noqa: PLC0415
    from llm_sidecar.embedded_store import EmbeddedStoreUnavailable, embedded_store  # noqa: PLC0415
    from llm_sidecar.local_config import LocalConfig  # noqa: PLC0415

    expected = None if arguments.no_token else arguments.token or secrets.token_urlsafe(24)
    # A token that was given is known to who gave it, and need not stand in one more log.
    key = "no-token-needed" if expected is None else "THE-TOKEN-THAT-YOU-GAVE" if arguments.token else expected
    async with AsyncExitStack() as stack:
        try:
            store_url = arguments.redis or await stack.enter_async_context(embedded_store())
        except EmbeddedStoreUnavailable as error:
            explain(str(error))
            return REFUSED
        source = LocalConfig(arguments.paths, team=arguments.team, store_url=store_url)
        document = load_or_explain(source)
        if document is None:
            return REFUSED
        return await serve_until_told(
            source,
            Sidecar(document, token=expected, state_directory=arguments.state_dir),
            port=arguments.port,
            admin_port=arguments.admin_port,
            admin_host="127.0.0.1",
            announce=lambda listening: _announce(listening, key),
        )


def _announce(listening: Listening, key: str) -> None:
    """The lines to paste into the shell of an application, on standard error: standard output is the audit log's."""
    base = f"http://{listening.host}:{listening.port}"
    sys.stderr.write(
        f"# llm-sidecar listens on {base}; metrics and health on port {listening.admin_port}.\n"
        "# For the shell of your application:\n"
        f"export OPENAI_BASE_URL={base}/v1 OPENAI_API_KEY={key}\n"
        f"export ANTHROPIC_BASE_URL={base} ANTHROPIC_API_KEY={key}\n"
        f"export GOOGLE_GEMINI_BASE_URL={base} GEMINI_API_KEY={key} GOOGLE_API_KEY={key}\n"
    )
    sys.stderr.flush()
