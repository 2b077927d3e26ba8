"""The check that guards all other shapes must itself find what it is there for."""

from __future__ import annotations

import pytest
from google.genai import types
from openai.types import Model

from tests.unit.simulate.shapes import assert_known_shape

MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "system"}


def test_a_missing_field_is_found() -> None:
    with pytest.raises(AssertionError):
        assert_known_shape(Model, {**MODEL, "id": None}, api="openai")


@pytest.mark.needs("recordings")
def test_an_unknown_field_is_found() -> None:
    with pytest.raises(AssertionError):
        assert_known_shape(Model, {**MODEL, "never_heard_of": 1}, api="openai")
    with pytest.raises(AssertionError):
        assert_known_shape(types.Model, {"neverHeardOf": 1}, api="google")
