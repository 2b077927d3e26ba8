"""Many sidecars and clients, a store that fails: do all counters come to the truth? (`python -m tests.accounting`)."""
