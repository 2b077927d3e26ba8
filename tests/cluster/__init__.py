"""A real Kubernetes for tests: the one that KUBECONFIG names, kind, or a one-node cluster of upstream binaries."""
