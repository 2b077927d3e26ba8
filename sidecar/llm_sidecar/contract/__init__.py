"""What the operator and the sidecar agree on: names, resources, the config document, Redis keys, windows.

Nothing here does I/O, and nothing here imports the rest of the sidecar.
"""
