"""Anthropic's messages.

Both generations of the protocol are read. What is written for a conversation of another language is that of version
2023-06-01, which such a request names in its header: `temperature`, `top_p` and `top_k` are no fields of the newer one,
and all else that is written here (`output_config`, adaptive thinking, system turns among the messages) is in both.

Decoding and encoding in this language alone gives an equal document, but for thinking that another provider wrote
(`signatures.py`), which Anthropic would refuse and which is left out.

What each of these files decides: `turns.py` the order of messages, `blocks.py` their content, `reasoning.py` thinking
and effort, `schema.py` what of a JSON Schema Anthropic takes.
"""

from llm_sidecar.translation.anthropic_messages.translator import AnthropicTranslator

__all__ = ["AnthropicTranslator"]
