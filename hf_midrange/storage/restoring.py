"""Frozen dataclasses back from the JSON they were written as, every value checked against its annotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints


Made = TypeVar("Made")


def restored(kind: type[Made], plain: Mapping[str, Any]) -> Made:
    """Return the dataclass that `dataclasses.asdict` and JSON turned into `plain`; lists become tuples.

    Raises:
        TypeError: if a value is of another type than its field says, a field is missing, or one is unknown.
        ValueError: what the class itself refuses.
    """
    return kind(**{name: value_of(hint, plain[name], name) for name, hint in hints_of(kind, plain).items()})


def hints_of(kind: type, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotation of each field in `plain`, refusing names that are no fields."""
    hints, fields = get_type_hints(kind), {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(plain) - fields)
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    return {name: hints[name] for name in plain}


def value_of(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - any annotation, any value
    """Return a JSON value as the annotation `hint` wants it; `name` is for the message if it does not fit."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return tuples(value)
    if origin in (Union, UnionType):
        return _first_fitting(parts, value, name)
    if origin is tuple or origin is Sequence:
        return _sequence(parts, value, name)
    if origin is list:
        return list(_sequence(parts, value, name))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return restored(hint, value)
    wanted = (int, float) if hint is float else (hint,)
    if not isinstance(hint, type) or not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"{name!r} is {str(value)[:50]!r}, where {getattr(hint, '__name__', hint)} is expected")
    return float(value) if hint is float else value


def tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with its lists turned into tuples."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def _first_fitting(kinds: Sequence[Any], value: Any, name: str) -> Any:  # noqa: ANN401
    for kind in kinds[:-1]:
        try:
            return None if kind is NoneType and value is None else value_of(kind, value, name)
        except TypeError:
            continue
    return None if kinds[-1] is NoneType and value is None else value_of(kinds[-1], value, name)


def _sequence(kinds: Sequence[Any], value: Any, name: str) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name!r} is {str(value)[:50]!r}, where a list is expected")
    if kinds[-1] is Ellipsis or len(kinds) == 1:
        kinds = [kinds[0]] * len(value)
    if len(kinds) != len(value):
        raise TypeError(f"{name!r} has {len(value)} entries, where {len(kinds)} are expected")
    return tuple(value_of(kind, item, name) for kind, item in zip(kinds, value, strict=True))
