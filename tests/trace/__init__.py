"""A trace-driven run of the whole sidecar: what a mix of real uses gains from the cache, and what it costs."""
