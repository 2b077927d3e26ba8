"""Embeddings, as OpenAI and Gemini can both say them. `extra`: see `conversation.py`."""

from __future__ import annotations

from dataclasses import dataclass

from llm_sidecar.contract.names import API
from llm_sidecar.translation.answer import ToldUsage
from llm_sidecar.translation.parts import NOTHING, Document


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingInput:
    """One thing to embed: text, or token numbers (OpenAI)."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """What is to be embedded, and how."""

    api: API
    model: str
    inputs: tuple[EmbeddingInput, ...]
    is_batch: bool
    """A list was given, so a list comes back, also of one."""
    dimensions: int | None = None
    encoding: str | None = None
    """`float` or `base64` (little-endian float32)."""
    task_type: str | None = None
    """Gemini's, such as RETRIEVAL_QUERY."""
    title: str | None = None
    user: str | None = None
    extra: Document = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingAnswer:
    """One vector for each input, in order."""

    api: API
    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: ToldUsage | None = None
    extra: Document = NOTHING
