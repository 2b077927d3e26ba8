"""`make provider-lines`: how much of what serves a provider is shared, and how much each provider adds.

Counts lines of code: neither blank lines nor comments nor docstrings. Counted is what takes part in a request to a
provider; `NOT_COUNTED` lists the rest.
"""

# ruff: noqa: INP001 - a loose program, not a package

from __future__ import annotations

import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "sidecar" / "llm_sidecar"
PROVIDERS = ("providers/openai.py", "providers/anthropic.py", "providers/google.py")
LANGUAGES = {
    "OpenAI's": (
        "formats/openai_chat.py",
        "formats/openai_responses.py",
        "formats/openai_embeddings.py",
        "formats/openai_errors.py",
        "formats/openai_usage.py",
        "translation/openai_chat/**/*.py",
        "translation/openai_responses/**/*.py",
        "translation/openai_embeddings.py",
    ),
    "Anthropic's": (
        "formats/anthropic_messages.py",
        "formats/anthropic_errors.py",
        "translation/anthropic_messages/**/*.py",
    ),
    "Gemini's": (
        "formats/gemini.py",
        "formats/gemini_errors.py",
        "formats/json_array.py",
        "translation/gemini/**/*.py",
        "translation/gemini_embeddings.py",
    ),
}
NOT_COUNTED = {
    "commands and start": ("__main__.py", "commands/**/*.py", "app.py", "reload.py", "health.py", "admin.py"),
    "local mode": ("local_config.py", "manifest*.py", "embedded_store.py", "published_config.py"),
    "resource models": ("contract/**/*.py",),
    "simulator": ("simulate/**/*.py",),
}
"""Everything else of the package is shared, and takes part in a request."""
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines of code by what they serve."""

    providers: dict[str, int]
    languages: dict[str, int]
    shared: int

    @property
    def share(self) -> float:
        """Shared part of what serves a provider, where a wire language counts as shared by all who speak it."""
        used_by_all = self.shared + sum(self.languages.values())
        return used_by_all / (used_by_all + sum(self.providers.values()))

    @property
    def share_strict(self) -> float:
        """The same, where each wire language counts as specific to its first provider."""
        specific = sum(self.providers.values()) + sum(self.languages.values())
        return self.shared / (self.shared + specific)


def count() -> Lines:
    """Count them."""
    return Lines(
        providers={name: code_lines(PACKAGE / name) for name in PROVIDERS},
        languages={
            name: sum(code_lines(path) for pattern in files for path in _found(pattern))
            for name, files in LANGUAGES.items()
        },
        shared=sum(code_lines(path) for path in _shared_files()),
    )


def _shared_files() -> set[Path]:
    named = [*PROVIDERS, *(file for files in LANGUAGES.values() for file in files)]
    named += [pattern for patterns in NOT_COUNTED.values() for pattern in patterns]
    return set(PACKAGE.rglob("*.py")).difference(*(_found(pattern) for pattern in named))


def _found(pattern: str) -> set[Path]:
    found = set(PACKAGE.glob(pattern))
    if not found:
        raise FileNotFoundError(f"nothing in the package is called {pattern}: bring this program up to date")
    return found


def code_lines(path: Path) -> int:
    """Lines of a Python file that hold code."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstring_lines(ast.parse(source)))


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of strings that stand alone: docstrings, and the sentences below attributes."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def table(lines: Lines) -> str:
    """The figures, and what they count."""
    rows = [(f"only for one provider: {name}", number) for name, number in lines.providers.items()]
    rows += [
        (f"for all who speak {name} language: formats/, translation/", number)
        for name, number in lines.languages.items()
    ]
    rows.append(("for every provider: the way of a request", lines.shared))
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        [
            "Lines of code (no blank lines, comments, docstrings) that take part in a request to a provider:",
            *(f"  {name.ljust(width)}  {number:5}" for name, number in rows),
            f"Shared: {lines.share:.1%}, a wire language counted as shared by all who speak it.",
            f"Shared: {lines.share_strict:.1%}, each wire language counted for its first provider alone.",
            f"Not counted: {', '.join(NOT_COUNTED)}, Lua scripts.",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(table(count()) + "\n")
