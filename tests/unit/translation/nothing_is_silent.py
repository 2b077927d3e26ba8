"""Whether each leaf of a document was brought over, was named as lost, or is no more than structure.

A leaf counts as brought over if another value in its place makes another outcome: then it is in what was written (or in
what was told). That cannot be fooled by a value that happens to stand elsewhere in the target, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from llm_sidecar.contract.names import API
from tests.unit.translation.pairs import Fate, Outcome, Path, leaves, pattern, with_another, without

_CAPITAL: Final = re.compile("[A-Z]")

NAMED_AS: Final = (
    # (what the losses say, what stands for it in a document)
    ("thinking", r"reasoning|redacted_thinking|thinking|thought|thought_signature"),
    ("thinking.signature", r"signature|redacted_thinking|encrypted_content|thought_signature"),
    ("redacted_thinking", r"encrypted_content"),
    ("thought_signature", r"extra_content"),
    ("citations", r"annotations|citations|grounding_metadata|citation_metadata"),
    ("cache_control", r"cache_control|prompt_cache_breakpoint"),
    ("reasoning.visible", r"display|include_thoughts|summary|generate_summary"),
    ("reasoning", r"thinking|reasoning|reasoning_effort|thinking_config|effort|summary|generate_summary"),
    ("logprobs", r"logprobs|top_logprobs|logprobs_result|avg_logprobs|response_logprobs"),
    ("finish_reason", r"finish_reason|stop_reason|status|incomplete_details"),
    ("stop_sequence", r"stop_sequence"),
    ("messages.content.name", r"filename|title"),
    ("choices", r"choices|candidates"),
)
"""Names that say in the words of the middle what an API has words of its own for."""

_SETTINGS_TOLD_AGAIN: Final = (
    "background|conversation|frequency_penalty|presence_penalty|instructions|max_output_tokens|max_tool_calls|metadata|moderation|"
    "parallel_tool_calls|previous_response_id|prompt_cache_key|prompt_cache_retention|reasoning|safety_identifier|"
    "store|temperature|text|tool_choice|tools|top_logprobs|top_p|truncation|user"
)
STRUCTURE_OF_REQUESTS: Final = {
    API.OPENAI_CHAT: (
        r"model",  # the provider's own name for it is put in its place
        r"stream_options\.include_usage",  # usage is always asked for, and told to those who asked
        r"response_format\.json_schema\.strict",  # elsewhere a schema is always kept to
    ),
    API.OPENAI_RESPONSES: (
        r"model",
        r"text\.format\.strict",  # as above
        r"input\[\]\.id",  # of an item; calls and results are told apart by their `call_id`
        r"reasoning\.(summary|generate_summary)",  # that thoughts are to be seen is carried; how long, nobody else asks
    ),
    API.ANTHROPIC_MESSAGES: (
        r"model",
        r"messages\[\]\.content.*\.source\.media_type",  # of a text, which others take for what it is
    ),
    API.GEMINI: (
        r"systemInstruction\.role",  # means nothing to Google, either
        r"(contents.*\.)?functionResponse\.name",  # the call's id says which tool it was
        r".*property_?[oO]rdering\[\]",  # carried as the order of the properties themselves
    ),
}
"""Per language, what of a request says nothing that the target would not know anyhow."""
STRUCTURE_OF_ANSWERS: Final = {
    API.OPENAI_CHAT: (
        r"object",
        r"created",  # Anthropic and Gemini tell no time
        r"choices\[\]\.index",  # an order that the choices have anyhow
        r"usage\..*",  # carried as far as there are buckets for it: see `formats.base.Usage`
    ),
    API.OPENAI_RESPONSES: (
        r"object|created_at|completed_at|status",  # the finish is carried
        r"usage\..*|total_tokens|billing\..*|tool_usage\..*",
        rf"({_SETTINGS_TOLD_AGAIN})([.\[].*)?",  # what the request said, told again
        r"output\[\]\.(id|status|phase|role)",  # of items, which others do not have
        r"output\[\]\.summary\[\]\.type",
    ),
    API.ANTHROPIC_MESSAGES: (r"role", r"usage\..*", r"content\[\]\.caller\..*"),
    API.GEMINI: (
        r"candidates\[\]\.(index|content\.role)",
        r"usageMetadata\..*",
    ),
}


@dataclass(slots=True)
class Account:
    """What became of the leaves of one pair of languages."""

    carried: int = 0
    named: int = 0
    structure: int = 0
    silent: list[str] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)

    def take(
        self, document: Any, bring: Callable[[Any], Outcome], *, structure: tuple[str, ...], examples: int = 2
    ) -> None:
        """Judge each leaf of a document, at most `examples` times in each place."""
        before = bring(document)
        if before.fate is not Fate.CARRIED:
            return
        assert bring(document) == before, "the same document must come out the same"
        for path, _ in leaves(document):
            place = pattern(path)
            self._seen[place] = self._seen.get(place, 0) + 1
            if self._seen[place] <= examples:
                self._judge(document, path, before, bring, structure)

    def _judge(
        self,
        document: Any,
        path: Path,
        before: Outcome,
        bring: Callable[[Any], Outcome],
        structure: tuple[str, ...],
    ) -> None:
        if any(bring(other) != before for other in with_another(document, path)):
            self.carried += 1
        elif is_named(document, path, before.losses):
            self.named += 1
        elif any(re.fullmatch(each, pattern(path)) for each in structure):
            self.structure += 1
        elif _is_presence(bring(without(document, path)), before):
            self.carried += 1
        else:
            self.silent.append(f"{pattern(path)} (named were: {', '.join(before.losses) or 'none'})")


def _is_presence(absent: Outcome, before: Outcome) -> bool:
    """The leaf says what it says by being there, such as a wish of which all values mean the same elsewhere."""
    return absent.fate is Fate.CARRIED and absent.written != before.written


def is_named(document: Any, path: Path, losses: tuple[str, ...]) -> bool:
    """Do the losses name the leaf, or something that it is in?"""
    told = {_snake(name.rpartition(".")[2]) for name in losses} | set(losses)
    around = set(_words_around(document, path))
    return bool(told & around) or any(
        name in losses and any(re.fullmatch(words, each) for each in around) for name, words in NAMED_AS
    )


def _words_around(document: Any, path: Path) -> Iterator[str]:
    """Names of fields on the way to a leaf, and what the objects on the way say that they are."""
    for step in path:
        if isinstance(document, dict):
            kind = document.get("type")
            if isinstance(kind, str):
                yield kind
        if isinstance(step, str):
            yield step
            yield _snake(step)
        document = document[step]


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)
