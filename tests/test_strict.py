"""The reader of records: what it takes is exactly what is annotated, what it refuses is named in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog.engines import ENGINES, load_engine
from planner.errors import UsageError
from planner.strict import Between, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A record within the record."""

    spokes: Annotated[int, Between(3, 64)] = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bicycle:
    """One field of every kind that is understood."""

    name: Annotated[str, Between(1, 8)]
    weight: float | None = None
    colour: Literal["red", "blue"] = "red"
    length: Annotated[int, Between(0, 9)] | str = 0
    bell: bool = False
    wheels: tuple[Wheel, ...] = ()
    gears: list[int] | None = None
    prices: dict[str, float] = field(default_factory=dict)
    anything: Any = None


def test_a_whole_record_is_read():
    """Lists become what is annotated, an int stands for a float, and what is left out is the default."""
    data = {"name": "x", "weight": 9, "wheels": [{"spokes": 28}, {}], "gears": [1, 2], "prices": {"a": 1.5}}
    wanted = Bicycle(name="x", weight=9, wheels=(Wheel(spokes=28), Wheel()), gears=[1, 2], prices={"a": 1.5})
    assert read_record(Bicycle, data) == wanted
    assert read_record(Bicycle, {"name": "x", "length": "1m", "anything": [{}]}).anything == [{}]


class Chain(NamedTuple):
    """A record as a named tuple."""

    links: int
    oil: Mapping[str, float] = MappingProxyType({})


def test_a_named_tuple_is_a_record_too():
    """Its defaults, types and unknown keys are those of any record."""
    assert read_record(Chain, {"links": 114}) == Chain(links=114)
    assert read_record(Chain, {"links": 114, "oil": {"dry": 1}}).oil == {"dry": 1}
    for wrong, said in (
        ({}, "links: is missing"),
        ({"links": "114"}, "links: must be"),
        ({"lnks": 1}, "lnks: unknown"),
    ):
        with pytest.raises(UsageError, match=f"^{said}"):
            read_record(Chain, wrong)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nme": 1}, "box.nme: unknown key; known: name, weight"),
        ({"name": 7}, "box.name: must be text, not 7"),
        ({"name": ""}, "box.name: its length must be at least 1"),
        ({"weight": "9"}, "box.weight: must be a number, not '9'"),
        ({"weight": True}, "box.weight: must be a number, not True"),
        ({"colour": "green"}, "box.colour: must be one of red, blue, not 'green'"),
        ({"colour": []}, "box.colour: must be one of red, blue, not a list"),
        ({"length": 10}, "box.length: must be at most 9, not 10"),
        ({"length": 1.5}, "box.length: must be a whole number or text, not 1.5"),
        ({"bell": 1}, "box.bell: must be true or false, not 1"),
        ({"wheels": {}}, "box.wheels: must be a list, not a mapping"),
        ({"wheels": [{}, {"spokes": 2}]}, "box.wheels[1].spokes: must be at least 3, not 2"),
        ({"wheels": [[]]}, "box.wheels[0]: must be a mapping, not a list"),
        ({"gears": [1, "2"]}, "box.gears[1]: must be a whole number, not '2'"),
        ({"prices": {1: 2.0}}, "box.prices: must be a mapping with text as keys, not 1"),
        ({"prices": {"a": None}}, "box.prices.a: must be a number, not None"),
        ({"gears": [1 << 300, "2"]}, "box.gears[1]: must be a whole number, not '2'"),
        ({"length": 1 << 99999}, "box.length: must be at most 9, not a huge number"),
        ({1 << 99999: 0}, "box.a huge number: unknown key"),
        ({"a\nb": 0}, "box.a b: unknown key"),
    ],
)
def test_what_is_wrong_is_said(change: dict[Any, Any], said: str):
    """The message names the path, what is allowed and what was given, in one line."""
    with pytest.raises(UsageError) as caught:
        read_record(Bicycle, {"name": "x"} | change, "box")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_no_mapping_are_named():
    """What has no default must be there, and a record is never read from anything but a mapping."""
    with pytest.raises(UsageError, match=r"^name: is missing$"):
        read_record(Bicycle, {})
    with pytest.raises(UsageError, match=r"^box: must be a mapping, not a list$"):
        read_record(Bicycle, [], "box")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(list(Bicycle.__dataclass_fields__)), JSON))
def test_no_data_crash_the_reader(data: dict[str, Any]):
    """Any data are a record or a refusal of one line."""
    try:
        read_record(Bicycle, data)
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the refusal is the other half of the law


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_settings_that_can_be_read(name: str):
    """No settings at all are the defaults, and a word the engine does not know is refused with those it knows."""
    kind = load_engine(name).settings
    assert read_record(kind, {}) == kind()
    with pytest.raises(UsageError, match=r"settings\.colour: unknown key"):
        read_record(kind, {"colour": "red"}, "settings")
