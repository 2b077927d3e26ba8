"""The demo behind `make demo-cluster`: the operator on a real Kubernetes, simulated providers, and an application."""
