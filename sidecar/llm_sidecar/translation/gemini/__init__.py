"""Google's Gemini API: `generateContent` and `streamGenerateContent`.

Decoding a document and encoding it again gives an equal one. What cannot be seen in the middle, and so is a default:

- A body that names its model names, encoded for another model, that other one.
- The streams that a provider is asked for are always events; a JSON array is only ever written to an application.
"""

from llm_sidecar.translation.gemini.translator import GeminiTranslator

__all__ = ["GeminiTranslator"]
