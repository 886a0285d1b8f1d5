"""Records are what frozen dataclasses are, as far as this project uses them."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest

from netspot.config import Config, MqttConfig
from netspot.record import Record, replace


class Point(Record):
    number: ClassVar[int] = 7
    x: int
    y: int = 2
    scale = 3  # no field


class Named(Point):
    name: str = ""


def test_fields_are_given_by_position_or_name_else_the_default() -> None:
    assert Point(1) == Point(1, 2) == Point(y=2, x=1) != Point(1, 3)
    assert Named(1, 2, "a") == Named(1, name="a")
    assert Point(1) != Named(1) and Point(1) != (1, 2)
    assert (Named.fields, Named.defaults) == (("x", "y", "name"), {"y": 2, "name": ""})
    assert len({Point(1), Point(1, 2), Point(2)}) == 2


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((), {"x": 1, "z": 2})])
def test_a_wrong_call_is_told(arguments: tuple[tuple[int, ...], dict[str, int]]) -> None:
    values, named = arguments
    with pytest.raises(TypeError, match="Point has the fields x, y; "):
        Point(*values, **named)


def test_records_are_immutable_and_make_changed_ones() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="x: a Point is immutable"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del point.x
    assert (replace(point, y=5), point) == (Point(1, 5), Point(1))
    assert copy.copy(point) == copy.deepcopy(point) == point
    with pytest.raises(TypeError, match="given"):
        replace(point, z=1)


def test_what_is_shown() -> None:
    assert repr(Point(1)) == "Point(x=1, y=2)"
    settings = MqttConfig(host="broker", password="hush")
    assert "host='broker'" in repr(settings) and "hush" not in repr(settings)
    assert "given" not in repr(Config()) and Config(given={}) == Config()
