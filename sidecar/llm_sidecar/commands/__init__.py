"""The subcommands of `llm-sidecar`, one file each: `add_parser` describes the arguments, `run` does the work."""
