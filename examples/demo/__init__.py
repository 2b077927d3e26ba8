"""The demo behind `make demo`: simulated providers, the proxy, and an application that knows of neither."""
