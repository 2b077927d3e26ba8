"""llm-sidecar's control plane: validates resources, publishes configuration, injects the proxy."""
