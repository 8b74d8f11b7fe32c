"""Laws that every resizing rule keeps, whatever the image."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.budget import ImageTokens
from planner.catalog.models import load_model, model_names
from planner.errors import UsageError
from planner.model import ImageRule, Vision
from planner.vision import RULES, counted, image_tokens
from planner.vision.float32 import f32, round_half_away
from planner.workload import ImageSize, parse_image_size

SIDES = st.one_of(st.integers(1, 20000), st.integers(1, 64), st.sampled_from([336, 448, 896, 1024, 4096]))
SIZES = st.builds(ImageSize, width=SIDES, height=SIDES)


def seeing() -> list[tuple[str, Vision]]:
    """Return every profile with a vision tower, one for each distinct pair of rules."""
    found = {}
    for name in model_names():
        vision = load_model(name, engine="hf").vision
        if vision is not None:
            found.setdefault(repr(sorted(vision.rules.items())), (name, vision))
    return list(found.values())


SEEING = seeing()
PAIRS = [
    pytest.param(vision, engine, id=f"{name}-{engine}")
    for name, vision in SEEING
    for engine in ("transformers", "llama.cpp")
    if ("mtmd" if engine == "llama.cpp" else "processor") in vision.rules
]


def asked(vision: Vision, size: ImageSize, engine: str) -> ImageTokens | str:
    """Return what the image becomes, or the line that refuses it."""
    try:
        return image_tokens(vision, size, engine)
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize(("vision", "engine"), PAIRS)
@settings(max_examples=25, deadline=None)
@given(size=SIZES)
def test_an_image_is_counted_or_refused(vision: Vision, engine: str, size: ImageSize) -> None:
    """Any size gives whole, consistent figures or one line that says who refuses it; nothing crashes."""
    found = asked(vision, size, engine)
    if isinstance(found, str):
        assert "refused by the model's own processor" in found or "llama.cpp cannot resize it" in found
        assert "\n" not in found
        return
    assert found.image == str(size)
    assert found.tokens >= 0
    assert found.extra_tokens >= 0
    assert 0 <= found.wasted_pixels < size.width * size.height
    assert sum(found.chunk_tokens) == found.tokens
    assert found.tiles >= 1
    assert found.encoder_sequences
    assert all(patches > 0 for patches in found.encoder_sequences)
    assert len(found.patch_grids) >= found.tiles
    assert parse_image_size(found.resized_to)


@pytest.mark.parametrize("model", ["qwen2.5-vl-7b", "qwen3-vl-8b", "glm-4.1v-9b", "gemma-4-31b", "kimi-k2.5"])
@settings(max_examples=60, deadline=None)
@given(size=st.builds(ImageSize, width=st.integers(40, 9000), height=st.integers(40, 9000)))
def test_native_resolution_keeps_its_limits(model: str, size: ImageSize) -> None:
    """Tokens of a rule with limits stay within them, rounding by one unit a side included."""
    limits = {
        "qwen2.5-vl-7b": (4, 16384),
        "qwen3-vl-8b": (64, 16384),
        "glm-4.1v-9b": (8, 6144),
        "gemma-4-31b": (1, 280),
        "kimi-k2.5": (1, 4096 + 2 * 128 + 1),  # padded up after the limit
    }
    try:
        found = image_tokens(load_model(model, engine="hf").vision, size)
    except UsageError:
        assert max(size.width, size.height) > 200 * min(size.width, size.height) or model == "gemma-4-31b"
        return
    least, most = limits[model]
    assert least <= found.tokens <= most


@settings(max_examples=100, deadline=None)
@given(width=st.integers(28, 4000), height=st.integers(28, 4000), step=st.integers(1, 400))
def test_a_larger_image_of_native_resolution_never_costs_less_below_the_limit(
    width: int, height: int, step: int
) -> None:
    """Within its pixel limits smart resizing is monotone in each side."""
    rule = ImageRule(rule="smart_resize", parameters={"patch": 14, "merge": 2, "min_pixels": 1, "max_pixels": 10**9})
    ratio = max(width + step, height) / min(width + step, height)
    if ratio > 200 or max(width, height) / min(width, height) > 200:
        return
    small = counted(ImageSize(width=width, height=height), rule)
    large = counted(ImageSize(width=width + step, height=height), rule)
    assert small.tokens <= large.tokens


@pytest.mark.parametrize("model", ["llama-3.2-11b-vision", "gemma-3-12b", "llava-1.5-7b", "deepseek-vl-7b"])
@settings(max_examples=30, deadline=None)
@given(size=SIZES)
def test_fixed_models_cost_the_same_whatever_the_image(model: str, size: ImageSize) -> None:
    """Models of fixed size take the same tokens, and Llama 3.2 Vision the same 6404 encoder states, for every image."""
    vision = load_model(model, engine="hf").vision
    asked, square = image_tokens(vision, size), image_tokens(vision, ImageSize(width=500, height=500))
    assert (asked.tokens, asked.cross_tokens) == (square.tokens, square.cross_tokens)
    assert asked.encoder_sequences == square.encoder_sequences


def test_every_profile_with_a_tower_has_a_processor_rule() -> None:
    """No profile that sees is without the rule of its processor, and each names a rule that exists."""
    for name in model_names():
        vision = load_model(name, engine="hf").vision
        if vision is not None:
            assert "processor" in vision.rules, name
            assert {rule.rule for rule in vision.rules.values()} <= set(RULES), name


@pytest.mark.parametrize(
    ("model", "image", "reason"),
    [
        ("qwen2.5-vl-7b", "20x5000", "the aspect ratio is beyond 200"),
        ("glm-4.1v-9b", "1x1000", "the aspect ratio is beyond 200"),
        ("pixtral-12b", "1x4000", "its shorter side would be empty"),
        ("phi-4-multimodal", "1000x5", "the aspect ratio is too extreme"),
        ("phi-3.5-vision", "1x20000", "leaves no pixel on the shorter side"),
        ("kimi-vl-a3b", "20x20000", "a side has more patches than there are positions"),
    ],
)
def test_what_a_processor_refuses_is_refused_in_one_line(model: str, image: str, reason: str) -> None:
    """An image that the model's own processor raises on is answered with who refuses it and why."""
    with pytest.raises(UsageError, match=f"image {image}: refused by the model's own processor") as refused:
        image_tokens(load_model(model, engine="hf").vision, parse_image_size(image))
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "text", ["0x100", "-3x5", "big", "1e9x1", "100", "100x", "x100", "1.5x2", "\u0661x\u0662", "2000000x1"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Sizes are two positive whole numbers of at most a million."""
    with pytest.raises(UsageError):
        parse_image_size(text)


def test_pixels_thrown_away_are_those_beyond_what_the_tower_sees() -> None:
    """Nothing is wasted by enlarging; a crop loses what it cuts off; a canvas what it shrinks."""
    crop = load_model("llava-1.5-7b", engine="hf").vision
    assert image_tokens(crop, parse_image_size("224x224")).wasted_pixels == 0
    assert image_tokens(crop, parse_image_size("336x336")).wasted_pixels == 0
    assert image_tokens(crop, parse_image_size("100x2000")).wasted_pixels == 100 * 2000 - 100 * 100
    canvas = load_model("llama-3.2-11b-vision", engine="hf").vision
    assert image_tokens(canvas, parse_image_size("1120x1120")).wasted_pixels == 0
    assert image_tokens(canvas, parse_image_size("4096x4096")).wasted_pixels == 4096**2 - 1120**2


def test_contradicting_parameters_end_in_one_line() -> None:
    """A rule unknown, without a parameter, or with an impossible one is a usage error that names it."""
    size = ImageSize(width=640, height=480)
    for rule, parameters, reason in [
        ("no_such_rule", {}, "image rule 'no_such_rule' is unknown"),
        ("smart_resize", {"patch": 14}, "min_pixels must be a whole number"),
        ("smart_resize", {"patch": True, "min_pixels": 1, "max_pixels": 9}, "patch must be a whole number"),
        (
            "tile_grid",
            {"tile": 448, "tokens": 1, "patch": 14, "max_patches": 10**9},
            "max_patches must be 1024 at most",
        ),
        ("anyres", {"tile": 336, "patch": 999, "pinpoints": (336, 336)}, "its parameters contradict each other"),
        ("anyres", {"tile": 1, "patch": 1, "pinpoints": (10**9, 10**9)}, "make no sense"),
        ("pan_and_scan", {"size": 1, "tokens": 1, "patch": 1, "do_pan_and_scan": "yes"}, "must be true or false"),
    ]:
        with pytest.raises(UsageError, match=reason):
            counted(size, ImageRule(rule=rule, parameters=parameters))


@given(st.floats(-1e30, 1e30))
def test_single_precision_is_idempotent_and_near(x: float) -> None:
    """Rounding to 32 bits twice is rounding once, and moves a number by less than one part in 16 million."""
    assert f32(f32(x)) == f32(x)
    assert abs(f32(x) - x) <= abs(x) / 2**24 or abs(x) < 1e-37


def test_halves_round_away_from_zero_as_in_c() -> None:
    """The engine rounds halves away from zero, where Python rounds them to even."""
    assert [round_half_away(x) for x in (0.5, 1.5, 2.5, -0.5, -2.5, 2.4)] == [1, 2, 3, -1, -3, 2]


def test_every_rule_has_its_function():
    """The table names modules; each holds a function of the rule's name."""
    for word, module in RULES.items():
        assert callable(getattr(import_module(module), word.removeprefix("mtmd_")))
