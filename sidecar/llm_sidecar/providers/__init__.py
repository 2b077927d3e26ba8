"""Places that answer: one short file each, and the factory that makes one from an LLMProvider's `type`."""
