"""What an application may want of an answer. A new feature: one more entry, then `python -m tests.golden --write`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.integration.translation.applications import Said, Wish

RESULT: Final = "21 degrees"
_WEATHER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where."}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
}
_CLOCK: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
    "required": ["zone"],
}
_CITY: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
_WEATHER_CALL: Final = ("weather", {"city": "example", "days": 1})
_CLOCK_CALL: Final = ("clock", {"zone": "UTC"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A conversation of one turn, or of two where the first one calls tools."""

    text: str
    wish: Wish
    check: Callable[[Sequence[Said]], None]

    @property
    def calls_tools(self) -> bool:
        """Whether a second turn gives results."""
        return bool(self.wish.tools)


def _is_heard(said: Sequence[Said]) -> None:
    assert "(simulated) heard: Say something." in said[0].text
    assert said[0].finish in {"stop", "completed", "end_turn", "STOP"}
    assert said[0].output_tokens


def _calls(*expected: tuple[str, Mapping[str, Any]]) -> Callable[[Sequence[Said]], None]:
    def check(said: Sequence[Said]) -> None:
        assert said[0].calls == expected
        assert said[0].finish in {"tool_calls", "completed", "tool_use", "STOP"}
        assert "read the tool's result" in said[1].text
        assert RESULT in said[1].text
        assert said[1].calls == ()

    return check


def _sees_an_image(said: Sequence[Said]) -> None:
    assert "I see 1 image." in said[0].text


def _keeps_to_the_schema(said: Sequence[Said]) -> None:
    answer = json.loads(said[0].text)
    assert {name: type(value) for name, value in answer.items()} == {"name": str, "people": int}


FEATURES: Final[Mapping[str, Feature]] = {
    "text": Feature(text="Say something.", wish=Wish(), check=_is_heard),
    "stream": Feature(text="Say something.", wish=Wish(stream=True), check=_is_heard),
    "tools": Feature(text="Tell me the weather.", wish=Wish(tools={"weather": _WEATHER}), check=_calls(_WEATHER_CALL)),
    "tools-streamed": Feature(
        text="Tell me the weather.", wish=Wish(tools={"weather": _WEATHER}, stream=True), check=_calls(_WEATHER_CALL)
    ),
    "parallel-tools": Feature(
        text="In parallel: the weather and the clock.",
        wish=Wish(tools={"weather": _WEATHER, "clock": _CLOCK}),
        check=_calls(_WEATHER_CALL, _CLOCK_CALL),
    ),
    "parallel-tools-streamed": Feature(
        text="In parallel: the weather and the clock.",
        wish=Wish(tools={"weather": _WEATHER, "clock": _CLOCK}, stream=True),
        check=_calls(_WEATHER_CALL, _CLOCK_CALL),
    ),
    "image": Feature(text="What is this?", wish=Wish(image=True), check=_sees_an_image),
    "schema": Feature(text="A city, please.", wish=Wish(schema=_CITY), check=_keeps_to_the_schema),
    "schema-streamed": Feature(
        text="A city, please.", wish=Wish(schema=_CITY, stream=True), check=_keeps_to_the_schema
    ),
    "thinking": Feature(
        text="Think, then tell me the weather.",
        wish=Wish(tools={"weather": _WEATHER}, thinking=True),
        check=_calls(_WEATHER_CALL),
    ),
    "thinking-streamed": Feature(
        text="Think, then tell me the weather.",
        wish=Wish(tools={"weather": _WEATHER}, thinking=True, stream=True),
        check=_calls(_WEATHER_CALL),
    ),
}
