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


def store_url(text: str) -> str:
    """Check the URL of a store, without repeating it: it may hold a password."""
    from llm_sidecar.contract.redis_url import InvalidStoreURL, parse_redis_url  # noqa: PLC0415 - not for every command

    try:
        parse_redis_url(text)
    except InvalidStoreURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def token(text: str) -> str:
    """Check a token: an empty one would let nobody in, or everybody."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "it is empty: give a token, leave the flag out for a random one, or --no-token"
        )
    return text
