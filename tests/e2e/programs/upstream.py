"""A provider whose answers tell which key it was called with, as a fingerprint: the simulator never tells keys.

It takes every key. It runs inside a pod, so it needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Upstream(BaseHTTPRequestHandler):
    """OpenAI's chat completions and list of models."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The models, by which the controller checks a key."""
        self._answer(
            {"object": "list", "data": [{"id": "gpt-5-mini", "object": "model", "created": 1, "owned_by": "x"}]}
        )

    def do_POST(self) -> None:
        """A chat completion whose text is the key's fingerprint."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        message = {"role": "assistant", "content": hashlib.sha256(key.encode()).hexdigest()[:12], "refusal": None}
        self._answer(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": request["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
            }
        )

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - as the base class calls it
        """Nothing."""

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 9901), Upstream).serve_forever()  # noqa: S104 - its Service comes from outside
