"""Tokens, tiles and encoder sequences as the models' own processors count them."""

from __future__ import annotations

from collections import defaultdict

import pytest
from vision_rows import rows

from planner.catalog.models import load_model
from planner.errors import UsageError
from planner.model import ImageRule
from planner.vision import counted, image_tokens
from planner.workload import parse_image_size


def sequences(row: dict) -> list[int]:
    """Return a table row's encoder sequences, written ``5x577`` where they are equal."""
    written = row["encoder_seqs"]
    if not isinstance(written, str):
        return written
    number, length = written.split("x")
    return [int(length)] * int(number)


def by_model() -> dict[str, list[dict]]:
    """Return the table's rows by model."""
    found = defaultdict(list)
    for row in rows("vision_tokens_hf"):
        found[row["model"]].append(row)
    return found


@pytest.mark.parametrize("model", by_model())
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_every_row_of_the_table_is_exact(model: str, engine: str) -> None:
    """A profile's processor rule gives the tokens, structural tokens, tiles and sequences of the real processor."""
    vision = load_model(model, engine="hf").vision
    for row in by_model()[model]:
        found = image_tokens(vision, parse_image_size(f"{row['width']}x{row['height']}"), engine)
        assert found.tokens == row["image_tokens"], row
        assert found.tiles == row["tiles"], row
        assert list(found.encoder_sequences) == sequences(row), row
        assert found.cross_tokens == row["cross_kv_tokens"], row
        assert row["extra_tokens"] in (None, found.extra_tokens), row


def test_the_table_is_whole() -> None:
    """The table that is compared above has its 672 rows, 48 models at 14 sizes."""
    assert len(rows("vision_tokens_hf")) == 672
    assert {len(of_one) for of_one in by_model().values()} == {14}


@pytest.mark.parametrize("row", rows("processors_odd_sizes"), ids=lambda row: f"{row['processor']}-{row['image']}")
def test_odd_sizes_are_exact(row: dict) -> None:
    """At 1x1, 17x990, 8000x6000 and the like a rule agrees with the processor, refusals included."""
    parameters = {key: tuple(value) if isinstance(value, list) else value for key, value in row["parameters"].items()}
    rule = ImageRule(rule=row["rule"], parameters=parameters)
    if row["result"] is None:
        with pytest.raises(UsageError, match="refused by the model's own processor"):
            counted(parse_image_size(row["image"]), rule)
        return
    found = counted(parse_image_size(row["image"]), rule)
    assert (found.tiles if row["counts"] == "tiles" else found.tokens) == row["result"]


def test_many_processors_are_compared() -> None:
    """The odd sizes above are those of three dozen processors, some of which they raise on."""
    table = rows("processors_odd_sizes")
    assert len({row["processor"] for row in table}) >= 37
    assert len(table) > 600
    assert 0 < sum(row["result"] is None for row in table) < 30


def test_a_user_may_change_what_the_processor_takes() -> None:
    """mm_processor_kwargs replace the profile's limits, by either of the processor's spellings; other words do not."""
    vision, size = load_model("qwen2.5-vl-7b", engine="hf").vision, parse_image_size("1920x1080")
    plain = image_tokens(vision, size)
    limited = image_tokens(vision, size, "vllm", overrides={"max_pixels": 1003520})
    spelled = image_tokens(vision, size, "vllm", overrides={"size": {"longest_edge": 1003520}})
    assert limited.tokens < plain.tokens
    assert limited.tokens == spelled.tokens
    assert limited.tokens * 784 <= 1003520
    assert image_tokens(vision, size, "vllm", overrides={"fps": 1, "use_fast": True}) == plain
    with pytest.raises(UsageError, match="takes no max_pixel=1"):
        image_tokens(vision, size, overrides={"max_pixel": 1})


def test_splitting_may_be_switched_off() -> None:
    """An Idefics3 image that is not split is one square view."""
    vision, size = load_model("idefics3-8b", engine="hf").vision, parse_image_size("1920x1080")
    whole = image_tokens(vision, size, overrides={"do_image_splitting": False})
    assert (whole.tokens, whole.extra_tokens, whole.tiles) == (169, 3, 1)


def test_crops_stop_at_three_images() -> None:
    """DeepSeek-VL2 cuts no image when a request has more than two."""
    vision, size = load_model("deepseek-vl2", engine="hf").vision, parse_image_size("1920x1080")
    assert [image_tokens(vision, size, n_images=n).tokens for n in (1, 2, 3)] == [1807, 1807, 421]
