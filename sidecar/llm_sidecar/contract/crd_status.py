"""What the operator writes into `status`: no model reads it, so that its schema stands here as it is."""

from __future__ import annotations

from typing import Any, Final

from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT
from llm_sidecar.contract.resources import Resource, TeamQuota

JSONSchema = dict[str, Any]


def status_schema(model: type[Resource]) -> JSONSchema:
    """The schema of a kind's status."""
    if not issubclass(model, TeamQuota):
        return _STATUS
    return {**_STATUS, "properties": {**_STATUS["properties"], **_USAGE}}


_STATUS: Final[JSONSchema] = {
    "type": "object",
    "description": "What the operator observed.",
    "properties": {
        "observedGeneration": {
            "type": "integer",
            "format": "int64",
            "minimum": 0,
            "description": "The metadata.generation that this status is about.",
        },
        "conditions": {
            "type": "array",
            "maxItems": 16,
            "description": "Each says whether one thing holds, since when, and why.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 316,
                        "description": "Name of the condition.",
                    },
                    "status": {
                        "type": "string",
                        "enum": ["True", "False", "Unknown"],
                        "description": "Whether it holds.",
                    },
                    "observedGeneration": {
                        "type": "integer",
                        "format": "int64",
                        "minimum": 0,
                        "description": "The metadata.generation that this condition is about.",
                    },
                    "lastTransitionTime": {
                        "type": "string",
                        "format": "date-time",
                        "description": "When the condition's status changed last.",
                    },
                    "reason": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 1024,
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                        "description": "Why, in one word for programs.",
                    },
                    "message": {
                        "type": "string",
                        "maxLength": 32768,
                        "description": "Why, for people.",
                    },
                },
            },
        },
        "cachePurged": {
            "type": "object",
            "description": "The last purge of cached answers that the annotation llm-sidecar.io/purge-cache asked for.",
            "required": ["value", "at"],
            "properties": {
                "value": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 64,
                    "description": "The annotation's value that was carried out.",
                },
                "at": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When every team's answers had been purged.",
                },
            },
        },
    },
}

_AMOUNT_PATTERN: Final = "^[0-9]{1,20}([.][0-9]{1,9})?$"


def _amount(description: str) -> JSONSchema:
    # A string, because costs have decimals, and numbers of JSON lose what is beyond 2^53.
    return {"type": "string", "minLength": 1, "maxLength": 30, "pattern": _AMOUNT_PATTERN, "description": description}


def _time(description: str) -> JSONSchema:
    return {"type": "string", "format": "date-time", "description": description}


_LIMIT_USAGE: Final[JSONSchema] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 63, "description": "Name of the limit."},
    "unit": {
        "type": "string",
        "enum": list(FIELD_OF_UNIT.values()),
        "description": "What the amounts count, by the field of the limit.",
    },
    "used": _amount("Charged in the current window."),
    "reserved": _amount("Held by requests under way."),
    "limit": _amount("What the window allows, with what was granted on top."),
    "percent": {
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "Used, in whole per cent of the limit, rounded down.",
    },
    "resetsAt": _time("When the window ends."),
    "burnRatePerHour": _amount("Used in an hour, by the last minutes up to the last hour; to two digits."),
    "exhaustedAt": _time("When nothing is left if that goes on. Only where it falls before the window's end."),
}

_USAGE: Final[JSONSchema] = {
    "usageReadAt": _time("When the figures below were read."),
    "usage": {
        "type": "array",
        "maxItems": 32,
        "description": "How far each limit is used.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name", "unit", "used", "reserved", "limit", "percent"],
            "properties": {
                **_LIMIT_USAGE,
                "beyondExpectation": _amount("By how much requests under way may still exceed what they hold."),
                "beyondWithoutStore": _amount(
                    "By how much the window may be exceeded because Redis is away, by spec.onStoreUnavailable. Missing "
                    "where nothing bounds it."
                ),
            },
        },
    },
    "tightest": {
        "type": "object",
        "description": "The limit that is used most; kubectl's columns show it.",
        "required": ["name", "unit", "used", "reserved", "limit", "percent", "remaining"],
        "properties": {**_LIMIT_USAGE, "remaining": _amount("Neither used nor reserved.")},
    },
    "lastAlert": {
        "type": "string",
        "maxLength": 41,
        "pattern": "^[0-9]{1,20}-[0-9]{1,20}$",
        "description": "The last alert of the store for which an Event was written.",
    },
}
