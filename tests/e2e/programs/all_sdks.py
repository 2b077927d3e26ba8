"""An application that uses all three official SDKs as their documentation tells to, and prints what they answered."""

from __future__ import annotations

import json

import anthropic
import openai
from google import genai

QUESTION = "hello from an application"

if __name__ == "__main__":
    # Kept in a variable: this client closes itself as soon as nobody holds it.
    google = genai.Client()
    answers = {
        "openai": openai.OpenAI(max_retries=0)
        .chat.completions.create(model="small", messages=[{"role": "user", "content": QUESTION}])
        .choices[0]
        .message.content,
        "anthropic": anthropic.Anthropic(max_retries=0)
        .messages.create(model="claude-small", max_tokens=50, messages=[{"role": "user", "content": QUESTION}])
        .content[0]
        .to_dict()["text"],
        "google": google.models.generate_content(model="gemini-small", contents=QUESTION).text,
    }
    print(json.dumps(answers), flush=True)
