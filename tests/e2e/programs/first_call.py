"""An application whose first instruction is a call by the official SDK, without retries: the proxy must be ready."""

from __future__ import annotations

import sys

import openai

if __name__ == "__main__":
    client = openai.OpenAI(max_retries=0, timeout=10)
    answer = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": f"hello from {sys.argv[1]}"}]
    )
    print("answer:", answer.choices[0].message.content, flush=True)
