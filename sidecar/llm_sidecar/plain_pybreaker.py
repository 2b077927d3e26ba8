"""pybreaker without redis-py.

pybreaker imports redis-py wherever that is installed, for a state storage that is not used here: 7 to 27 MiB and up to
half a second in every pod. The sidecar does not install it; where something else did, this keeps it from being loaded.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast

_modules = cast("dict[str, ModuleType | None]", sys.modules)
_missing = "redis" not in _modules
if _missing:
    _modules["redis"] = None  # an import of it now fails as if it were not installed
try:
    import pybreaker
finally:
    if _missing:
        del _modules["redis"]

__all__ = ["pybreaker"]
