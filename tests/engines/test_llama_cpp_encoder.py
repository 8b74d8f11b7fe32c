"""The vision encoder's memory is what the engine itself reserved, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from encoder_rows import Row, asked_images, fresh_rows, kinds, table_rows, towers

from planner.engines.llama_cpp.encoder import (
    EncoderBuffers,
    Picture,
    encoder_buffers,
    encoding_batches,
    fit_reservation,
    picture_of,
    pictures_of,
)


def answer(row: Row, known: dict | None = None) -> EncoderBuffers:
    """Return the planner's answer to a row's question."""
    return encoder_buffers(
        row.vision,
        kinds() if known is None else known,
        row.pictures,
        flash_attn=row.flash_attn,
        on_gpu=row.on_gpu,
        compute_capability=row.capability,
        max_tokens=row.max_tokens,
    )


def figures(row: Row) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return the planner's figures and the engine's, for everything that the row knows."""
    got = answer(row)
    pairs = [
        (got.counted_weights_bytes, row.weights),
        ((got.warm_up.device_bytes, got.warm_up.host_bytes), row.warm_up),
        (got.peak.device_bytes, row.peak_device),
        (got.peak.host_bytes, row.peak_host),
        (got.resident_device_bytes, row.device_after_load),
        (got.peak_device_bytes, row.device_after_images),
        (got.flash, row.flash_used),
        (got.basis, "exact"),
    ]
    return tuple(zip(*(pair for pair in pairs if pair[1] is not None), strict=True))


@pytest.mark.parametrize("name", towers())
def test_every_row_of_the_tables_is_exact(name):
    """Weights, both arenas at load, both after the image, and whether flash attention is used: all as measured."""
    for row in table_rows()[name]:
        got, measured = figures(row)
        assert got == measured, (row.on_gpu, row.flash_attn, row.pictures)


def test_the_tables_are_whole():
    """No row is left out: 404 of the older table, 458 of the newer one."""
    assert sum(len(rows) for rows in table_rows().values()) == 404 + 458


@pytest.mark.parametrize("name", sorted(fresh_rows()))
def test_towers_asked_about_afterwards_are_exact(name):
    """Shapes and projector types that the tables do not have are as exact."""
    for row in fresh_rows()[name]:
        got, measured = figures(row)
        assert got == measured, (row.on_gpu, row.flash_attn, row.pictures)


def test_many_fresh_towers_were_asked():
    """The fresh rows are many and cover every projector type of the data, with the images asked about last."""
    types = {rows[0].vision.projector for rows in (*fresh_rows().values(), *asked_images().values())}
    unseen = {kind for kind, value in kinds().items() if value.modality == "vision"} - types
    assert sum(len(rows) for rows in fresh_rows().values()) > 800
    assert not unseen


@pytest.mark.parametrize("rows", [table_rows(), fresh_rows()], ids=["tables", "fresh"])
def test_a_type_that_is_not_known_gets_a_bound_above_the_truth(rows):
    """Without the list of operations, the labelled bound is never below what the engine reserved."""
    for row in (row for of_tower in rows.values() for row in of_tower):
        known, bound = answer(row), answer(row, {})
        assert bound.basis == "assumed"
        assert bound.weights_bytes == known.weights_bytes
        for peak, high in ((known.warm_up, bound.warm_up), (known.peak, bound.peak)):
            assert high.device_bytes >= peak.device_bytes, (row.vision.projector, row.flash_attn, row.pictures)
            assert high.host_bytes >= peak.host_bytes, (row.vision.projector, row.flash_attn, row.pictures)


@pytest.mark.parametrize("name", towers())
def test_fitting_reserves_the_weights_and_the_warm_up_of_the_first_gpu(name):
    """llama-server adds its own count for the device; the host's arena and larger pictures do not enter."""
    for row in table_rows()[name]:
        expected = row.weights + row.warm_up[0] if row.on_gpu else 0
        assert fit_reservation(answer(row)) == expected


def test_arenas_grow_with_pictures_and_never_shrink():
    """A small picture after a large one leaves the peak; the large one after the small one reaches the same."""
    small, large = Picture(width=280, height=280), Picture(width=2240, height=1680)
    row = table_rows()["qwen2-vl-7b"][0]
    peaks = [answer(replace(row, pictures=order)).peak for order in ((large,), (large, small), (small, large))]
    assert peaks[0] == peaks[1] == peaks[2]
    assert peaks[0].device_bytes > answer(replace(row, pictures=())).warm_up.device_bytes


def test_a_picture_smaller_than_the_warm_up_changes_nothing():
    """What was reserved for the larger warm-up picture holds the smaller one."""
    row = table_rows()["qwen3-vl-8b"][0]
    got = answer(replace(row, pictures=(Picture(width=320, height=320),)))
    assert got.peak == got.warm_up


def test_without_warm_up_the_first_picture_reserves():
    """--no-warmup: nothing stands at load, and the peak is that of the pictures alone."""
    row = table_rows()["kimi-vl-a3b"][0]
    only = Picture(width=140, height=140)
    lazy = encoder_buffers(row.vision, kinds(), [only], warm_up=False)
    assert (lazy.warm_up.device_bytes, lazy.warm_up.host_bytes) == (0, 0)
    assert 0 < lazy.peak.device_bytes < answer(row).warm_up.device_bytes


def test_what_a_refused_attempt_reserved_stays():
    """Head size 88 has no kernel: with auto the failed attempt leaves at least the arenas of either way."""
    rows = [row for row in table_rows()["llama-4-scout"] if row.on_gpu]
    auto = answer(next(row for row in rows if row.flash_attn == "auto"))
    off = answer(next(row for row in rows if row.flash_attn == "off"))
    assert not auto.flash
    assert auto.warm_up.device_bytes >= off.warm_up.device_bytes
    assert auto.warm_up.host_bytes >= off.warm_up.host_bytes


# measured: 1920x1080 becomes 13 tiles of 448 x 448 and 256 tokens, encoded through the batch call of the library
@pytest.mark.parametrize(("flash_attn", "device_bytes"), [("auto", 117_555_200), ("off", 336_134_400)])
def test_equal_tiles_are_encoded_together_up_to_a_token_limit(flash_attn, device_bytes):
    """Programs put four tiles of 256 tokens into one batch; the arena is the one measured for that."""
    vision = table_rows()["internvl3-2b"][0].vision
    kind = kinds()[vision.projector]
    batches = encoding_batches(kind, [(Picture(width=448, height=448), 256)] * 13)
    assert [picture.batch for picture in batches] == [4, 4, 4, 1]
    got = encoder_buffers(vision, kinds(), batches, flash_attn=flash_attn)
    assert (got.peak.device_bytes, got.peak.host_bytes) == (device_bytes, 9_633_792)


def test_other_towers_are_encoded_one_by_one():
    """A type that does not batch, and an unknown one, keep every picture for itself."""
    views = [(Picture(width=336, height=336), 64)] * 3
    assert encoding_batches(kinds()["mlp"], views) == [picture for picture, _ in views]
    assert encoding_batches(None, views) == [picture for picture, _ in views]


def test_pictures_of_different_size_are_not_joined():
    """Only neighbours of the same size share a batch."""
    a, b = Picture(width=448, height=448), Picture(width=896, height=448)
    kind = kinds()["internvl"]
    assert [p.batch for p in encoding_batches(kind, [(a, 256), (b, 256), (a, 256)])] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "grid", "size"),
    [
        ("smolvlm2-2.2b", (27, 27), (384, 384)),  # 384 is no multiple of 14
        ("llava-1.5-7b", (24, 24), (336, 336)),
        ("qwen2-vl-7b", (138, 78), (1932, 1092)),
        ("gemma-4-e2b", (120, 69), (1920, 1104)),
    ],
)
def test_a_grid_of_patches_leads_back_to_the_picture(name, grid, size):
    """A fixed tower is given its whole image size; any other picture is exactly its patches."""
    vision = table_rows()[name][0].vision
    picture = picture_of(kinds()[vision.projector], vision, *grid)
    assert (picture.width, picture.height) == size


def test_the_picture_of_the_whole_is_told_from_tiles():
    """Where overview and tiles are treated differently, the overview's size says which one it is."""
    row = next(row for rows in fresh_rows().values() for row in rows if row.vision.projector == "deepseekocr")
    kind = kinds()["deepseekocr"]
    assert picture_of(kind, row.vision, 64, 64).overview
    assert not picture_of(kind, row.vision, 40, 40).overview


def test_a_row_of_tiles_is_one_tall_picture():
    """1920x1080 as 2 rows of 4 tiles and an overview, 410 + 410 + 273 tokens: three pictures, as measured."""
    row = next(row for rows in fresh_rows().values() for row in rows if row.vision.projector == "deepseekocr")
    found = pictures_of(kinds()["deepseekocr"], row.vision, [(40, 40)] * 8 + [(64, 64)], (410, 410, 273))
    assert found == [
        (Picture(width=640, height=2560), 410),
        (Picture(width=640, height=2560), 410),
        (Picture(width=1024, height=1024, overview=True), 273),
    ]


def test_views_keep_the_tokens_of_their_chunk():
    """One chunk per view: each view has its own tokens; without chunks every view has the image's."""
    vision = table_rows()["internvl3-2b"][0].vision
    kind = kinds()["internvl"]
    tile = Picture(width=448, height=448)
    assert pictures_of(kind, vision, [(32, 32)] * 2, (256, 256)) == [(tile, 256)] * 2
    assert pictures_of(kind, vision, [(32, 32)] * 2, (512,)) == [(tile, 512)] * 2
    assert pictures_of(kind, vision, [], ()) == []
