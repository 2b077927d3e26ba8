"""What an answer of another provider carries on its way to a Responses client, and how it is known again.

A client of this API sends back what it got: the id of the last answer, or its items. Both must be told from OpenAI's
own, since OpenAI knows nothing of them. So all ids that are made up here bear a mark, and a reasoning item holds its
provider's signature in `encrypted_content`, in an envelope that names the one provider who can read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats.openai_responses import FOREIGN_ANSWER

MARK: Final = "_llmsidecar_"
_SEAL: Final = "llmsidecar."
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a reasoning item of another provider holds."""

    owner: API
    signature: str | None
    redacted: str | None


def response_id(foreign_id: str) -> str:
    """The id of an answer that another provider gave, derived from its id there. Ids of this API stay as they are."""
    if foreign_id.startswith("resp_"):
        return foreign_id
    return FOREIGN_ANSWER + (foreign_id if _PLAIN_ID.fullmatch(foreign_id) else _digest(foreign_id))


def item_id(prefix: str, answer_id: str, number: int) -> str:
    """The id of the answer's item with this number; the same each time, and no other answer's."""
    return f"{prefix}{MARK}{_digest(answer_id)}_{number}"


def is_made_up(item_id: object) -> bool:
    """True for an item's id that was made up here."""
    return isinstance(item_id, str) and MARK in item_id


def seal(owner: API, signature: str | None, redacted: str | None) -> str:
    """The `encrypted_content` of another provider's reasoning."""
    return _SEAL + base64.b64encode(orjson.dumps([owner.value, signature, redacted])).decode()


def unseal(encrypted_content: str | None) -> Sealed | None:
    """What `seal` put there; None for all else."""
    if encrypted_content is None or not encrypted_content.startswith(_SEAL):
        return None
    try:
        owner, signature, redacted = orjson.loads(base64.b64decode(encrypted_content.removeprefix(_SEAL)))
        sealed = Sealed(API(owner), signature, redacted)
    except (ValueError, TypeError, binascii.Error):
        return None
    told = (sealed.signature, sealed.redacted)
    return sealed if all(each is None or isinstance(each, str) for each in told) else None


def call_signature(extra_content: Mapping[str, Any] | None) -> str | None:
    """Gemini's signature of a tool call, where OpenAI's chat (as Google offers it) has it as well."""
    google = extra_content.get("google") if extra_content else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def with_call_signature(signature: str) -> dict[str, Any]:
    """See `call_signature`."""
    return {"google": {"thought_signature": signature}}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
