"""From any wire language to any other, by way of one set of frozen dataclasses in the middle.

    request:  document ─decode→ Conversation ─encode→ document        (`conversation.py`)
    answer:   document ─decode→ Answer       ─encode→ document        (`answer.py`)
    stream:   bytes    ─decode→ events       ─encode→ bytes           (`events.py`)

Each language has a package here, which knows nothing of the others. Nothing here is imported in a pod whose calls all
stay in their own language: those pass as they came (see `llm_sidecar.formats`).
"""
