"""Tells when the proxy's configuration file changed and when a changed one came into use, until told to end.

It runs beside the proxy in its container, and by the same clock as the test.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from llm_sidecar.contract.names import ADMIN_PORT, CONFIG_DIRECTORY

POLL_SECONDS = 0.01


def file_version() -> str:
    """The kubelet swaps this link when it has written all files anew."""
    return str((Path(CONFIG_DIRECTORY) / "..data").readlink())


def hash_in_use() -> str:
    """What the proxy itself says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN_PORT}/readyz", timeout=5) as answer:
        return str(json.load(answer)["config"]["hash"])


def tell(what: str, look: Callable[[], str]) -> None:
    """A line for what is there now, and one for each change."""
    before = None
    while True:
        now = look()
        if now != before:
            print(json.dumps({"what": what, "version": now, "at": time.time()}), flush=True)
            before = now
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    for name, look in (("file", file_version), ("in use", hash_in_use)):
        threading.Thread(target=tell, args=(name, look), daemon=True).start()
    sys.stdin.read()
