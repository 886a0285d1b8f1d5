"""Immutable values with named fields: what the standard library's dataclasses give, without their cost at start.

They compile half a dozen functions for each class, 30 of the 160 ms that this program took to start on a PC and ten
times as much on a small board; here the classes share theirs. Type checkers know both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Never, TypeVar, dataclass_transform

R = TypeVar("R", bound="Record")


@dataclass_transform(frozen_default=True)
class Record:
    """Its fields are what a class annotates; a value that is assigned there is the default, shared by all instances."""

    fields: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    _names: ClassVar[frozenset[str]] = frozenset()
    _required: ClassVar[frozenset[str]] = frozenset()  # those without a default, which come first

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared = [name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)]
        cls.fields = (*dict.fromkeys((*cls.fields, *declared)),)  # one that is declared again stays in its place
        cls.defaults = {**cls.defaults, **{name: vars(cls)[name] for name in declared if name in vars(cls)}}
        cls._names = frozenset(cls.fields)
        cls._required = cls._names - cls.defaults.keys()

    def __init__(self, *values: Any, **named: Any) -> None:
        """Raises TypeError for a field without a value, one that is given twice, and one that is none."""
        if named or not len(self._required) <= len(values) <= len(self.fields):
            self._check(values, named)
        fields = self.__dict__
        fields.update(self.defaults)
        fields.update(zip(self.fields, values))  # noqa: B905 (``strict`` takes as long as four fields)
        if named:
            fields.update(named)

    def _check(self, values: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given = {*self.fields[: len(values)], *named}
        if not self._required <= given <= self._names or len(given) != len(values) + len(named):
            wrong = f"{len(values)} values and those of {', '.join(named) or 'no names'} were given"
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}; {wrong}")

    def __setattr__(self, name: str, value: Any) -> Never:
        raise AttributeError(f"{name}: a {type(self).__name__} is immutable; replace(...) makes another")

    def __delattr__(self, name: str) -> Never:
        self.__setattr__(name, None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._shown())})"

    def _values(self) -> tuple[Any, ...]:
        """What makes it equal to another one."""
        return tuple(self.__dict__[name] for name in self.fields)

    def _shown(self) -> Iterable[str]:
        """The fields that ``repr`` tells."""
        return self.fields


def replace(record: R, **changes: Any) -> R:
    """The same with other values in some fields."""
    return type(record)(**{**{name: record.__dict__[name] for name in record.fields}, **changes})
