"""Quickly made dataclasses behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, asdict, field, fields, replace

import pytest

from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No field at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """A single field."""

    a: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Some:
    """Fields without a default, with one, with a factory, and of another such class."""

    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: One | None = None

    @property
    def twice(self) -> int:
        """A property."""
        return 2 * self.a


@dataclass(frozen=True, slots=True, kw_only=True)
class Secretive:
    """Fields that are not shown, not compared, not given."""

    shown: int
    hidden: str = field(repr=False)
    ignored: int = field(default=0, compare=False)
    computed: int = field(default=7, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discreet:
    """A field that is not shown."""

    shown: int
    hidden: str = field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The same by the standard library."""

    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: One | None = None


def test_values_and_defaults():
    """Keywords only; factories are asked each time."""
    first, second = Some(a=1), Some(a=1, b="x", c=[3])
    assert (first.a, first.b, first.c, first.d, first.twice) == (1, "b", [], None, 2)
    assert second.c == [3]
    assert Some(a=1).c is not first.c


@pytest.mark.parametrize("words", [{}, {"a": 1, "z": 2}])
def test_wrong_words_are_refused_as_by_the_standard_library(words):
    """With the same message but for the class's name."""
    messages = []
    for made in (Some, Plain):
        with pytest.raises(TypeError) as refused:
            made(**words)
        messages.append(str(refused.value).replace(made.__name__, ""))
    assert messages[0] == messages[1]


def test_positions_are_refused():
    """Every field is named."""
    with pytest.raises(TypeError):
        Some(1)


@pytest.mark.parametrize("made", [Nothing(), One(a=1), Some(a=1, d=One(a=2))])
def test_nothing_can_be_changed(made):
    """Neither a field nor anything else can be set or deleted."""
    for name in ("a", "z"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)


def test_equality_and_hash():
    """By class and values; what holds a list has no hash."""
    assert One(a=1) == One(a=1) != One(a=2)
    assert Nothing() == Nothing() != One(a=1)
    assert Some(a=1) != Plain(a=1)
    assert len({One(a=1), One(a=1), One(a=2), Nothing(), Nothing()}) == 3
    with pytest.raises(TypeError):
        hash(Some(a=1))


def test_they_are_dataclasses():
    """``fields``, ``replace``, ``asdict``, ``repr``, copies and pickles work."""
    made = Some(a=1, d=One(a=2))
    assert [one.name for one in fields(made)] == ["a", "b", "c", "d"]
    assert replace(made, a=5) == Some(a=5, d=One(a=2))
    assert asdict(made) == {"a": 1, "b": "b", "c": [], "d": {"a": 2}}
    assert repr(made) == repr(Plain(a=1, d=One(a=2))).replace("Plain", "Some")
    for same in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301 - our own bytes
        assert same == made
        assert same is not made


def test_fields_may_stay_out():
    """Of the representation, of comparisons, of the arguments."""
    assert repr(Discreet(shown=1, hidden="x")).endswith("Discreet(shown=1)")
    assert Discreet(shown=1, hidden="x") != Discreet(shown=1, hidden="y")
    made = Secretive(shown=1, hidden="x", ignored=2)
    assert made == Secretive(shown=1, hidden="x", ignored=3)
    assert made.computed == 7
    assert "x" not in repr(made).partition("Secretive")[2]
    with pytest.raises(FrozenInstanceError):
        made.shown = 2
