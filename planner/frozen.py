"""``dataclass`` of the standard library, with frozen values made in a fifth of the time.

A command makes some hundred classes before it answers. The standard library compiles half a dozen methods for each;
here only ``__init__`` is compiled, the others are shared. Type checkers see the standard library's own decorator.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - what type checkers see
else:

    def dataclass(cls=None, /, **options):  # noqa: ANN001, ANN003, ANN201
        """Return ``cls`` as a dataclass: quickly where it is frozen, has slots and takes keywords only."""
        if cls is None:
            return lambda cls: dataclass(cls, **options)
        if options == _QUICK and not any(map(_is_special, vars(cls).values())):
            return _quickly(cls)
        return dataclasses.dataclass(cls, **options)


_QUICK = {"frozen": True, "slots": True, "kw_only": True}


def _is_special(value: object) -> bool:
    """Whether a field is left out of ``__init__``, comparisons or the hash."""
    return isinstance(value, Field) and not (value.init and value.compare and value.hash is None)


def _quickly(cls: type) -> Any:  # noqa: ANN401
    """Return ``cls`` with fields and slots by the standard library, and with methods of our own."""
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(cls)
    fields = dataclasses.fields(made)
    made.values__ = _getter([field.name for field in fields])
    made.__init__ = _initialiser(made, fields)
    made.__repr__, made.__eq__, made.__hash__ = _repr, _eq, _hash
    made.__setattr__ = made.__delattr__ = _refuse
    made.__getstate__, made.__setstate__ = _state, _restore
    return made


def _initialiser(cls: Any, fields: Iterable[Field[Any]]) -> Callable[..., None]:  # noqa: ANN401
    """Compile ``__init__``: keywords only, each written to its slot, what is not given by its default or factory."""
    names: dict[str, Any] = {"MISSING": MISSING}
    words, body = ["self"], []
    for field in fields:
        name = field.name
        names[f"set_{name}"] = getattr(cls, name).__set__
        names[f"default_{name}"] = MISSING if field.default is MISSING else field.default
        names[f"make_{name}"] = field.default_factory
        made = field.default_factory is not MISSING
        optional = made or field.default is not MISSING
        words.append(f"{name}=default_{name}" if optional else name)
        value = f"make_{name}() if {name} is MISSING else {name}" if made else name
        body.append(f"    set_{name}(self, {value})")
    head = ", ".join([words[0], "*", *words[1:]] if len(words) > 1 else words)
    exec("\n".join([f"def __init__({head}):", *(body or ["    pass"])]), names)  # noqa: S102 - our own field names
    made_init: Callable[..., None] = names["__init__"]
    made_init.__qualname__ = f"{cls.__qualname__}.__init__"
    return made_init


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what makes a tuple of an instance's values."""
    if len(names) > 1:
        return attrgetter(*names)
    return staticmethod(lambda self: tuple(getattr(self, name) for name in names))


def _state(self: Any) -> tuple[Any, ...]:  # noqa: ANN401
    values: tuple[Any, ...] = self.values__(self)
    return values


def _restore(self: Any, state: tuple[Any, ...]) -> None:  # noqa: ANN401
    for name, value in zip(self.__dataclass_fields__, state, strict=True):
        object.__setattr__(self, name, value)


def _eq(self: Any, other: Any) -> Any:  # noqa: ANN401 - or NotImplemented
    if other.__class__ is not self.__class__:
        return NotImplemented
    values: Callable[[Any], tuple[Any, ...]] = self.values__
    return values(self) == values(other)


def _hash(self: Any) -> int:  # noqa: ANN401
    return hash(self.values__(self))


def _repr(self: Any) -> str:  # noqa: ANN401
    shown = [field.name for field in dataclasses.fields(self) if field.repr]
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{self.__class__.__qualname__}({values})"


def _refuse(self: object, name: str, *_: object) -> None:  # noqa: ARG001 - as `object.__setattr__`
    raise FrozenInstanceError(f"cannot assign to field {name!r}")
