"""Kubernetes quantities (`50m`, `96Mi`) as numbers: to compare what pods ask for, and to refuse what is none."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(
    r"\+?(?P<number>[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"
    r"(?:(?P<suffix>n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)

_FACTORS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


def amount(quantity: Any) -> Decimal | None:
    """The number that a quantity stands for, or None where it is no quantity of ours to understand."""
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        return None
    number = Decimal(match["number"])
    if match["suffix"]:
        return number * _FACTORS[match["suffix"]]
    return number.scaleb(int(match["exponent"] or 0))
