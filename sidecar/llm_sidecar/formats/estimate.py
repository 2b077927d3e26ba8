"""Guesses how many input tokens a request will cost, from sizes alone.

A reservation needs a number before the provider tells one. A tokenizer per model would cost milliseconds, go stale
and still miss images and tools; a guess that is a little too high is settled by the measured usage anyway.
"""

from __future__ import annotations

import re
from typing import Final

BYTES_PER_TOKEN: Final = 3.5
"""English prose has about 4.2, code and JSON about 3; the request's own JSON syntax counts as text."""

TOKENS_PER_PART: Final = 1600
"""For an image, file or sound: what the large providers charge at most for one image of ordinary size. A guess."""

_LEAST_BASE64_BYTES: Final = 512
_BASE64: Final = re.compile(
    rb'"(?:data|file_data|image_url|url|b64_json)"\s*+:\s*+"(?:data:[^",]{0,200},)?+([A-Za-z0-9+/_=\\-]{%d,}+)"'
    % _LEAST_BASE64_BYTES
)
# The literal word in front makes the search fast, which goes through every request.
_TYPED_PART: Final = re.compile(
    rb'"type"\s*+:\s*+"(?:image_url|input_image|image|document|file|input_file|input_audio)"'
)
_GEMINI_PART: Final = re.compile(rb'"(?:inline|file)(?:D|_d)ata"\s*+:\s*+\{')


def input_tokens(body: bytes) -> int:
    """The estimate for a request that consists of text and parts like images."""
    parts = _parts(body)
    if not parts:
        return text_tokens(len(body))
    encoded_bytes = sum(run.end(1) - run.start(1) for run in _BASE64.finditer(body))
    return text_tokens(len(body) - encoded_bytes) + parts * TOKENS_PER_PART


def has_parts(body: bytes) -> bool:
    """True where an image, a file or a sound is a part of the request."""
    return _parts(body) > 0


def _parts(body: bytes) -> int:
    parts = len(_TYPED_PART.findall(body))
    if b"inline" in body or b"file" in body:
        parts += len(_GEMINI_PART.findall(body))
    return parts


def text_tokens(size_bytes: int) -> int:
    """The estimate for so many bytes of text, never zero for any text at all."""
    return -int(-size_bytes // BYTES_PER_TOKEN)
