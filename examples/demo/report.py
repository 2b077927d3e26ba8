"""How the demo is shown: a table that grows with each step, a sentence below each row, and a summary."""

from __future__ import annotations

import os
import sys
import textwrap
from collections import defaultdict
from typing import TextIO

from prometheus_client.parser import text_string_to_metric_families

from examples.demo.steps import Row

WIDTH = 113
COLUMNS = (("step", 20), ("SDK", 9), ("asked for", 12), ("answered by", 26), ("cache", 6))
NUMBERS = (("tries", 5), ("tokens", 6), ("quota left", 12), ("ms", 7))
"""`ms` is the time from the request's head to the answer's end, in the proxy: the provider's time included."""


class Report:
    """Writes to a terminal, or to a file; coloured on a terminal only, and not where NO_COLOR is set."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(self, text: str = "", style: str = "") -> None:
        """One line."""
        codes = {"bold": "1", "dim": "2", "green": "32", "yellow": "33", "red": "31"}
        if self._coloured and style:
            text = f"\033[{codes[style]}m{text}\033[0m"
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def heading(self) -> None:
        """The table's first line."""
        names = [name.ljust(width) for name, width in COLUMNS] + [name.rjust(width) for name, width in NUMBERS]
        self.line(" ".join(names), "bold")
        self.line("─" * WIDTH, "dim")

    def row(self, row: Row) -> None:
        """One step."""
        texts = (row.step, row.sdk, row.asked, row.answered_by, row.cache)
        numbers = (str(row.attempts or "-"), str(row.tokens), row.quota_left, f"{row.milliseconds:.1f}")
        cells = [text.ljust(width) for text, (_, width) in zip(texts, COLUMNS, strict=True)]
        cells += [text.rjust(width) for text, (_, width) in zip(numbers, NUMBERS, strict=True)]
        self.line(" ".join(cells), _style(row))
        for line in textwrap.wrap(row.note, WIDTH - 2):
            self.line(f"  {line}", "dim")

    def summary(self, exposition: str) -> None:
        """What the metrics say of it all."""
        self.line()
        self.line("What /metrics says now", "bold")
        self.line(f"  requests    {_counts(exposition, 'llm_requests_total', 'status')} (by status)")
        self.line(f"  tokens      {_counts(exposition, 'llm_tokens_total', 'provider')}")
        self.line(f"  cache       {_counts(exposition, 'llm_cache_requests_total', 'result')}")
        self.line(f"  failovers   {_counts(exposition, 'llm_failovers_total', 'from', 'to', 'reason')}")
        self.line(f"  refusals    {_counts(exposition, 'llm_quota_refusals_total', 'team', 'limit')}")


def _style(row: Row) -> str:
    if row.status >= 400:
        return "red"
    if row.cache == "hit":
        return "green"
    return "yellow" if row.attempts > 1 else ""


def _counts(exposition: str, name: str, *labels: str) -> str:
    """The samples of one metric, added up over all labels but these."""
    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == name:
                sums[" → ".join(sample.labels[label] for label in labels)] += sample.value
    return ", ".join(f"{key}: {value:.0f}" for key, value in sorted(sums.items())) or "none"
