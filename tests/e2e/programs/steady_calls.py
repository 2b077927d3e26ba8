"""An application that calls without a pause and without retries, and prints what became of each call, with its time."""

from __future__ import annotations

import json
import threading
import time

import openai


def call_for_ever(worker: int) -> None:
    """One client, one call after the other."""
    client = openai.OpenAI(max_retries=0, timeout=10)
    number = 0
    while True:
        number += 1
        began = time.time()
        try:
            question = f"question {number} of worker {worker}"
            answer = client.chat.completions.create(
                model="fingerprint", messages=[{"role": "user", "content": question}]
            )
            outcome = answer.choices[0].message.content
        except openai.APIStatusError as error:
            outcome = f"status {error.status_code}: {error.message}"
        except openai.APIError as error:
            outcome = f"failed: {type(error).__name__}"
        print(json.dumps({"began": began, "ended": time.time(), "outcome": outcome}), flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    for one in range(4):
        threading.Thread(target=call_for_ever, args=(one,), daemon=True).start()
    threading.Event().wait()
