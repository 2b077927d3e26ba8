"""Answers kept in the shared store: what may be kept, under which key, for how long."""
