"""`python -m tests.golden --write`: write what is made of each case anew, for a person to read the diff.

Of each pod what the webhook makes of it, and of each cell of the translation matrix what its provider is sent.
"""

from __future__ import annotations

import argparse

from tests.golden.injection import EXPECTATIONS, cases, outcome
from tests.integration.translation import cells


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="replace the expectations by what is so")
    parser.parse_args()
    for case in cases():
        made = outcome(case)
        for name in EXPECTATIONS:
            path = case / name
            if name not in made:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_text(encoding="utf-8") != made[name]:
                path.write_text(made[name], encoding="utf-8")
                print(f"wrote {case.name}/{name}")
    cells.write(print)


if __name__ == "__main__":
    main()
