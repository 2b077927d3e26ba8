"""`python -m examples.demo`: the proxy at work, on this machine alone. `make demo` calls it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from examples.demo.services import DemoFailed, Services, application_environment, running_services

if TYPE_CHECKING:
    from examples.demo.report import Report
    from examples.demo.steps import Row

FAILED = 1
INTERRUPTED = 130


def main() -> int:
    """Run the demo; returns its exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        began = time.monotonic()
        with running_services() as services:
            application_environment(services)
            rows, report = _tell(services)
            if arguments.json is not None:
                _write_json(arguments.json, rows, services)
            if arguments.stay:
                _stay(services, report)
        report.line()
        report.line(f"Done in {time.monotonic() - began:.1f} s; everything has ended.", "bold")
    except DemoFailed as failure:
        sys.stderr.write(f"demo: failed: {failure}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("demo: stopped; everything has ended\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - an SDK's error, most likely: told in one line, as any other failure
        sys.stderr.write(f"demo: failed: {type(error).__name__}: {error}\n")
        return FAILED
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description="Simulated providers, the proxy, and three SDKs.")
    parser.add_argument("--stay", action="store_true", help="leave all of it running until Ctrl-C")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table, the metrics and the audit log, too")
    return parser.parse_args()


def _tell(services: Services) -> tuple[list[Row], Report]:
    # Imported here: the SDKs look at the environment when they are imported, and take a second to do so.
    from examples.demo.application import Application  # noqa: PLC0415
    from examples.demo.report import Report  # noqa: PLC0415
    from examples.demo.steps import Story  # noqa: PLC0415

    report = Report()
    report.line("Three official SDKs → llm-sidecar on loopback (with its own Valkey) → simulated providers", "bold")
    report.line(
        "The application has no provider key, only a token for the proxy, and reads both URL and token from its "
        "environment.\n",
        "dim",
    )
    report.heading()
    rows = []
    for row in Story(services, Application()).rows():
        report.row(row)
        rows.append(row)
    report.summary(services.metrics())
    report.line()
    report.line("Two of its audit lines: one per request, never its content", "bold")
    for row in rows:
        if row.step in {"a provider is down", "a stream breaks off"}:
            report.line(json.dumps(services.audit_line(row.request_id)))
    report.line()
    report.line("What next", "bold")
    report.line("  make demo ARGS=--stay    leave it running, to call it from your own shell")
    report.line("  examples/demo/           the manifests, and the application's code")
    report.line("  README.md                the same with your own keys")
    return rows, report


def _write_json(path: Path, rows: list[Row], services: Services) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "rows": [asdict(row) for row in rows],
        "audit": [services.audit_line(row.request_id) for row in rows],
        "metrics": services.metrics(),
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _stay(services: Services, report: Report) -> None:
    base = services.environment["ANTHROPIC_BASE_URL"]
    report.line()
    report.line("Still running. In another shell:", "bold")
    report.line("  export " + " ".join(f"{name}={value}" for name, value in services.environment.items()))
    report.line(
        f'  curl -si {base}/v1/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        '-d \'{"model": "small", "messages": [{"role": "user", "content": "Hello"}]}\''
    )
    report.line(f"  curl -s {services.admin_url}/metrics | grep ^llm_")
    report.line(f"Edit the manifests in {services.manifests}: changes take effect within two seconds.")
    try:
        report.line("Ctrl-C ends it.")
        signal.pause()
    except KeyboardInterrupt:
        report.line()


if __name__ == "__main__":
    sys.exit(main())
