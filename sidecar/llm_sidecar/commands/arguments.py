"""What several commands take as an argument; apart from what they do with it, which is slow to import."""

from __future__ import annotations

import argparse
from typing import Final

MAXIMUM_PORT: Final = 65_535


def port_number(text: str) -> int:
    """Read a port; 0 takes any free one. A larger number would be cut to its lowest 16 bits without a word."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAXIMUM_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a whole number from 0 to {MAXIMUM_PORT}")
    return int(text)
