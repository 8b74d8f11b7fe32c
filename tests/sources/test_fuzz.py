"""Laws of the readers on inputs that nobody chose: read or refused in one line, never anything else.

Short by design; ``tests/fuzz/fuzz_readers.py`` is the long, coverage-guided run with the same checks.
"""

from __future__ import annotations

import contextlib
import copy
import json
import tracemalloc
from pathlib import Path

import pytest
from fuzz.fuzz_readers import ODD, TARGETS, make_check, read_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources.configurations import CONFIGURATIONS
from untraced import untraced

from planner.errors import VlplanError

SEEDS = Path(__file__).parent.parent / "fuzz" / "seeds"
RAW = [target for target in TARGETS if target != "config_values"]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
PAIRS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)


def seeds(target):
    """Return the seed inputs of a target."""
    return [path.read_bytes() for path in sorted((SEEDS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_there_are_seeds(target):
    """Every target starts from honest inputs, and they are small."""
    assert seeds(target)
    assert all(len(data) < 100_000 for data in seeds(target))


@pytest.mark.parametrize("target", RAW)
@QUICK
@given(data=st.data())
def test_disturbed_seeds(target, data):
    """Any seed with bytes changed, cut out or put in is read or refused."""
    seed = bytearray(data.draw(st.sampled_from(seeds(target))))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, max(0, len(seed) - 1)))
        length = data.draw(st.integers(0, 12))
        seed[place : place + length] = data.draw(st.binary(max_size=12))
    make_check(target)(bytes(seed))


@pytest.mark.parametrize("target", RAW)
@QUICK
@given(data=st.binary(max_size=400))
def test_any_bytes(target, data):
    """Bytes without any meaning are refused."""
    make_check(target)(data)


@pytest.mark.parametrize("target", ["index", "manifest", "config_text"])
@QUICK
@given(value=PAIRS)
def test_any_json(target, value):
    """JSON of any shape is read or refused."""
    make_check(target)(json.dumps(value).encode())


@settings(QUICK, max_examples=150)
@given(data=st.data())
def test_configurations_with_odd_values(data):
    """An honest configuration with odd values anywhere is read or refused, its budget computed or not."""
    config, preprocessor = copy.deepcopy(CONFIGURATIONS[data.draw(st.sampled_from(sorted(CONFIGURATIONS)))])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(
            st.sampled_from(
                [
                    part
                    for part in (config, config.get("text_config"), config.get("vision_config"), preprocessor)
                    if isinstance(part, dict) and part
                ]
            )
        )
        place[data.draw(st.sampled_from(sorted(place)))] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    files = {"config.json": json.dumps(config).encode(), "preprocessor_config.json": json.dumps(preprocessor).encode()}
    with contextlib.suppress(VlplanError):
        read_folder(files)


@pytest.mark.parametrize("target", TARGETS[:-1])
def test_seeds_are_read_fast_and_small(target):
    """No seed takes a tenth of a second or 20 MB."""
    check = make_check(target)
    for data in seeds(target):
        check(data)  # data files are loaded once
        with untraced() as spent:
            check(data)
        assert spent.seconds < 0.1
        tracemalloc.start()
        check(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6


@pytest.mark.parametrize(("key", "value"), [("heads", 0), ("layers", 35_682), ("layers", 10**9), ("width", 10**12)])
def test_towers_that_no_model_has(key, value):
    """A second tower without heads, or with absurd numbers, is refused before anything of that size is built."""
    width = {"clip-l-14-224": {"image_size": 224, "patch_size": 14}, "sam_vit_b": {key: value}}
    config = {**CONFIGURATIONS["deepseek-ocr"][0], "vision_config": {"width": width}}
    with untraced() as spent, pytest.raises(VlplanError):
        read_folder({"config.json": json.dumps(config).encode()})
    assert spent.seconds < 0.5
