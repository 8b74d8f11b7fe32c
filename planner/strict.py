"""Mappings from outside become records: every key known, every value of its annotated type, nothing converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from planner.errors import UsageError

T = TypeVar("T")
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    NoneType: "empty",
}


class Between(NamedTuple):
    """A range for an annotation: of a number's value, else of a text's or list's length."""

    low: float
    high: float = float("inf")


class _OutOfRangeError(UsageError):
    """A value of the right type that is too small or too large."""


def read_record(kind: type[T], data: object, where: str = "") -> T:
    """Return mapping ``data`` as a value of ``kind``, a dataclass or, quicker to define, a named tuple.

    Understood are plain types, ``Literal``, unions, lists, tuples (written as lists), mappings with text as keys,
    records within records, and ``Annotated[..., Between(low, high)]``. A float may be written as an int.

    Args:
        kind: a class whose annotations can be resolved at run time.
        data: what YAML, JSON or a command line gave.
        where: what to call ``data`` in an error; keys follow it with a point.

    Raises:
        UsageError: one line with the path of the first wrong key or value, and what is allowed there.
    """
    if not isinstance(data, dict):
        raise _wrong(where, "a mapping", data)
    known, hints = _fields(kind), _hints(kind)  # type: ignore[arg-type]  # a class can be hashed
    for key in data:
        if key not in known:
            raise UsageError(f"{_below(where, key)}: unknown key; known: {', '.join(known)}")
    for name, required in known.items():
        if required and name not in data:
            raise UsageError(f"{_below(where, name)}: is missing")
    return kind(**{key: _value(hints[key], value, _below(where, key)) for key, value in data.items()})


@cache
def _fields(kind: Any) -> dict[str, bool]:  # noqa: ANN401 - any record
    """Return the keys of a record, and whether each must be there."""
    if is_dataclass(kind):
        return {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    return {name: name not in kind._field_defaults for name in kind._fields}


def _is_record(hint: object) -> bool:
    return isinstance(hint, type) and (is_dataclass(hint) or hasattr(hint, "_field_defaults"))


@cache
def _hints(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - any record
    return get_type_hints(kind, include_extras=True)


def _below(where: str, key: object) -> str:
    name = " ".join(key.split())[:80] if isinstance(key, str) else _shown(key)
    return f"{where}.{name}" if where else name


def _shown(value: object) -> str:
    """Return ``value`` for a message; containers by their kind, and no number that takes a page."""
    for kind in (dict, list):
        if isinstance(value, kind):
            return _WORDS[kind]
    return "a huge number" if isinstance(value, int) and value.bit_length() > 200 else repr(value)[:60]


def _wrong(where: str, wanted: str, value: object) -> UsageError:
    return UsageError(f"{where}: must be {wanted}, not {_shown(value)}")


def _value(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401, PLR0911 - as annotated; one case a line
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        inner, *ranges = get_args(hint)
        return _limited(ranges, _value(inner, value, where), where)
    if origin is Literal:
        return _chosen(get_args(hint), value, where)
    if origin in (Union, UnionType):
        return _one_of(get_args(hint), value, where)
    if origin in (list, tuple):
        return origin(_items(get_args(hint)[0], value, where))
    if origin in (dict, Mapping):
        return _mapping(get_args(hint)[1], value, where)
    if _is_record(hint):
        return read_record(hint, value, where)
    return _plain(hint, value, where)


def _limited(ranges: list[Between], value: Any, where: str) -> Any:  # noqa: ANN401 - as annotated
    number = isinstance(value, (int, float))
    size = value if number else len(value)
    for low, high in ranges:
        if not low <= size <= high:
            bounds = f"at most {high}" if size > high else f"at least {low}"
            said = f"must be {bounds}, not {_shown(value)}" if number else f"its length must be {bounds}"
            raise _OutOfRangeError(f"{where}: {said}")
    return value


def _chosen(allowed: tuple[Any, ...], value: object, where: str) -> object:
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise _wrong(where, f"one of {', '.join(map(str, allowed))}", value)
    return value


def _one_of(members: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401 - as annotated
    """Return ``value`` as the first of the types that takes it; out of a type's range it is none of the others."""
    meant = [member for member in members if member is not NoneType]
    if value is None and len(meant) < len(members):
        return None
    if len(meant) == 1:
        return _value(meant[0], value, where)
    for member in meant:
        try:
            return _value(member, value, where)
        except _OutOfRangeError:
            raise
        except UsageError:
            continue
    raise _wrong(where, " or ".join(_word(member) for member in meant), value)


def _word(hint: Any) -> str:  # noqa: ANN401 - as annotated
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return _WORDS.get(get_origin(kind) or kind, "something else")


def _items(hint: Any, value: Any, where: str) -> list[Any]:  # noqa: ANN401 - as annotated
    if not isinstance(value, (list, tuple)):
        raise _wrong(where, "a list", value)
    return [_value(hint, item, f"{where}[{index}]") for index, item in enumerate(value)]


def _mapping(hint: Any, value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - as annotated
    if not isinstance(value, dict):
        raise _wrong(where, "a mapping", value)
    for key in value:
        if not isinstance(key, str):
            raise _wrong(where, "a mapping with text as keys", key)
    return {key: _value(hint, item, _below(where, key[:80])) for key, item in value.items()}


def _plain(kind: type, value: Any, where: str) -> Any:  # noqa: ANN401 - as annotated
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, _WORDS.get(kind, f"a {kind.__name__}"), value)
    return value
