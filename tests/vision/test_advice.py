"""What to send instead of an image."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.models import load_model
from planner.errors import UsageError
from planner.vision import image_tokens
from planner.vision.advice import (
    USUAL_SIZES,
    advise,
    decoded_bytes,
    ladder,
    largest_without_waste,
    next_cheaper,
    sequence_tokens,
    with_long_side,
)
from planner.workload import ImageSize, parse_image_size

MODELS = ["qwen2.5-vl-7b", "llava-1.6-vicuna-7b", "llama-3.2-11b-vision", "internvl3-8b", "pixtral-12b", "gemma-3-4b"]


def counting(model: str, engine: str = "transformers") -> partial:
    """Return the function that counts an image's tokens for a model."""
    return partial(image_tokens, load_model(model, engine="hf").vision, engine=engine)


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=10, deadline=None)
@given(size=st.builds(ImageSize, width=st.integers(300, 6000), height=st.integers(300, 6000)))
def test_the_size_without_waste_wastes_nothing_and_one_more_pixel_does(model: str, size: ImageSize) -> None:
    """What is advised is not enlarged by the rule's loss, and its longer side cannot grow by a pixel."""
    count = counting(model)
    found = largest_without_waste(count, size)
    assert found is not None
    assert found.wasted_pixels == 0
    best = parse_image_size(found.image)
    if best != size:
        more = with_long_side(size, max(best.width, best.height) + 1)
        assert count(more).wasted_pixels > 0


@pytest.mark.parametrize(
    ("engine", "size", "advised"),
    [
        ("llama.cpp", "20000x20000", "1792x1792"),  # 4096 tokens are 64 x 64 patches of 28 pixels
        ("transformers", "4000x3000", "3999x2999"),  # rounded to 4004x2996: four rows too few
        ("transformers", "4004x2996", "4004x2996"),
    ],
)
def test_rounded_sides_do_not_halve_the_advice(engine: str, size: str, advised: str) -> None:
    """Where a rule rounds sides up and down, the advice is the largest size that wastes nothing, not any such size."""
    found = largest_without_waste(counting("qwen2.5-vl-7b", engine), parse_image_size(size))
    assert found is not None
    assert found.image == advised


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=6, deadline=None)
@given(size=st.builds(ImageSize, width=st.integers(300, 3000), height=st.integers(300, 3000)))
def test_the_next_cheaper_size_is_smaller_and_cheaper(model: str, size: ImageSize) -> None:
    """What is advised costs fewer tokens and is no scrap; a model of fixed cost has no cheaper size."""
    count = counting(model)
    found = next_cheaper(count, size)
    if model in ("llama-3.2-11b-vision", "gemma-3-4b"):
        assert found is None
    if found is not None:
        smaller = parse_image_size(found.image)
        assert max(smaller.width, smaller.height) <= max(size.width, size.height)
        seen = min(
            parse_image_size(count(size).resized_to).width, max(size.width, size.height)
        )  # no more than is there
        assert max(smaller.width, smaller.height) >= max(seen, 300) // 8
        assert sequence_tokens(found) < sequence_tokens(count(size))


def test_advice_for_a_photo_of_48_megapixels() -> None:
    """A large photo on Qwen2.5-VL: what it takes decoded, what wastes nothing, and the step below."""
    advice = advise(counting("qwen2.5-vl-7b"), parse_image_size("8000x6000"))
    assert advice.decoded_bytes == 144_000_000
    assert advice.asked.tokens == 16170
    assert advice.no_waste is not None
    assert advice.no_waste.tokens <= 16384
    assert advice.cheaper is not None
    assert advice.cheaper.tokens < advice.asked.tokens


def test_where_the_shape_alone_decides_another_shape_is_advised() -> None:
    """InternVL cuts every 4:3 photo into 12 tiles; a slightly narrower one costs less at the same sharpness."""
    cheaper = next_cheaper(counting("internvl3-8b"), parse_image_size("8000x6000"))
    assert cheaper is not None
    assert sequence_tokens(cheaper) < 3330
    assert parse_image_size(cheaper.image).width >= 1792


def test_an_image_that_wastes_nothing_needs_no_other_size() -> None:
    """No smaller size is advised against waste where there is none."""
    assert advise(counting("qwen2.5-vl-7b"), parse_image_size("644x448")).no_waste is None


def test_the_ladder_leaves_out_what_is_refused() -> None:
    """A ladder has a row per size, in order, and none for a size that the processor refuses."""
    sizes = (*USUAL_SIZES, parse_image_size("20x5000"))
    rows = ladder(counting("qwen2.5-vl-7b"), sizes)
    assert [row.image for row in rows] == [str(size) for size in USUAL_SIZES]


def test_a_refused_image_gets_no_advice() -> None:
    """The refusal of the image itself is passed on."""
    with pytest.raises(UsageError, match="refused"):
        advise(counting("qwen2.5-vl-7b"), parse_image_size("20x5000"))


def test_decoded_bytes_are_three_per_pixel() -> None:
    """A decoded picture holds one byte for each of red, green and blue."""
    assert decoded_bytes(parse_image_size("1920x1080")) == 6_220_800
