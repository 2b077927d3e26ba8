"""OpenAI's endpoints without tokens: models, and those that a proxy only passes on (audio, files, moderations)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_sidecar.simulate.answer import JSONObject, Stamp
from llm_sidecar.simulate.errors import Family, invalid_request

if TYPE_CHECKING:
    from collections.abc import Sequence

_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
_FILE_BYTES = 64 * 1024


def model(name: str) -> JSONObject:
    """Describe one model."""
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "system"}


def models(names: Sequence[str]) -> JSONObject:
    """List the models."""
    return {"object": "list", "data": [model(name) for name in names]}


def moderation(body: JSONObject, stamp: Stamp) -> JSONObject:
    """Find nothing wrong, with each of the inputs."""
    given = body.get("input")
    if not given:
        message = "Missing required parameter: 'input'."
        raise invalid_request(Family.OPENAI, message, param="input", code="missing_required_parameter")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    count = len(given) if isinstance(given, list) and all(isinstance(each, str) for each in given) else 1
    kind = body.get("model") or "omni-moderation-latest"
    return {"id": "modr-" + stamp.token("moderation", 29), "model": kind, "results": [result] * count}


def transcription(body: bytes, content_type: str) -> JSONObject:
    """Answer with the size of the upload, so that a test can tell that every byte came."""
    if not content_type.startswith("multipart/form-data") or b'name="file"' not in body:
        message = "Missing required parameter: 'file'."
        raise invalid_request(Family.OPENAI, message, param="file", code="missing_required_parameter")
    return {"text": f"Simulated transcription of {len(body)} bytes.", "usage": {"type": "duration", "seconds": 1}}


def file_content(name: str) -> bytes:
    """Return bytes of every value, the same for the same name: no text codec survives them."""
    start = sum(name.encode()) % 256
    return bytes((start + offset) % 256 for offset in range(256)) * (_FILE_BYTES // 256)
