"""What the sidecar costs, measured against the floor of its own stack, within one run (`python -m tests.bench`)."""
