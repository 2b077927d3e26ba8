"""OpenAI chat completions, to and from the middle. See `llm_sidecar.translation` for the way through.

Decoding and encoding a document gives it back, but for these defaults:

- A stream always asks for its usage (`stream_options.include_usage`).

What this language says in ways of its own:

- `reasoning_content` (also spelled `reasoning`) is not OpenAI's, but many servers tell the model's thoughts so.
  Thoughts of other languages go to applications under this name; their signatures are dropped. No thoughts
  of theirs go to providers.
- A Gemini thought signature travels as `extra_content.google.thought_signature` of its tool call, as in Google's own
  chat API: the application gives it back with the call.
- A part is marked for the cache by `prompt_cache_breakpoint`, or by `cache_control` as other gateways have it.
- Tool messages hold text alone: images and files in a result follow in a user's message behind the results.
- Stream chunks that are written here carry no `obfuscation`.
"""

from __future__ import annotations

from llm_sidecar.translation.openai_chat.translator import OpenAIChatTranslator

__all__ = ["OpenAIChatTranslator"]
