"""llm-sidecar's data plane: the localhost proxy that an application's LLM SDK talks to."""

__version__ = "0.1.0"
