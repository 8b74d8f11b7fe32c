"""From an image's size to tokens, views and bytes, as the engine itself answered for random towers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from encoder_rows import Asked, asked_images, fresh_rows, kinds, table_rows

from planner.engines.llama_cpp.encoder import (
    Encoder,
    EncoderBuffers,
    Picture,
    encoder_buffers,
    encoding_batches,
    pictures_of,
)
from planner.errors import UsageError


def pictures(asked: Asked) -> list[Picture]:
    """Return what the planner says is encoded in one go."""
    kind, found = kinds()[asked.vision.projector], asked.tokens()
    views = pictures_of(kind, asked.vision, found.patch_grids, found.chunk_tokens, found.token_grid)
    return encoding_batches(kind, views) if asked.together else [picture for picture, _ in views]


def buffers(asked: Asked) -> EncoderBuffers:
    """Return the planner's bytes."""
    return encoder_buffers(
        asked.vision,
        kinds(),
        pictures(asked),
        flash_attn=asked.flash_attn,
        on_gpu=asked.on_gpu,
        compute_capability=asked.capability,
        max_tokens=asked.max_tokens,
    )


@pytest.mark.parametrize("name", sorted(asked_images()))
def test_tokens_and_bytes_are_the_engines(name):
    """Tokens per chunk, markers, positions, views, weights, both arenas at load and after the image: all exact."""
    for asked in asked_images()[name]:
        where = (asked.image, asked.on_gpu, asked.flash_attn, asked.max_tokens, asked.together)
        if not asked.chunk_tokens:
            with pytest.raises(UsageError):
                asked.tokens()
            continue
        tokens, got = asked.tokens(), buffers(asked)
        counts = (tokens.chunk_tokens, tokens.extra_tokens, tokens.n_positions)
        assert counts == (asked.chunk_tokens, asked.marker_tokens, asked.n_positions), where
        assert tuple((p.width, p.height, p.batch) for p in pictures(asked)) == asked.views, where
        assert (got.counted_weights_bytes, got.basis) == (asked.weights, "exact"), where
        assert (got.warm_up.device_bytes, got.warm_up.host_bytes) == asked.warm_up, where
        assert (got.peak.device_bytes, got.peak.host_bytes) == asked.peak, where
        if asked.on_gpu:
            assert got.resident_device_bytes == asked.device_after_load, where


def test_many_images_were_asked():
    """The images are many and reach every projector type that sees."""
    asked = [item for items in asked_images().values() for item in items]
    types = {item.vision.projector for item in asked}
    assert len(asked) > 800
    assert types == {word for word, kind in kinds().items() if kind.modality == "vision"}


def test_every_audio_tower_was_asked_about():
    """Beside a vision tower, here or in the older rows, each type of audio tower has been reserved for."""
    every = (*table_rows().values(), *fresh_rows().values())
    visions = [rows[0].vision for rows in (*every, *asked_images().values())]
    heard = {str(v.facts.get("audio.projector_type", kinds()[v.projector].audio)) for v in visions}
    assert heard >= {word for word, kind in kinds().items() if kind.modality == "audio"}


def test_blocks_that_are_kept_are_never_cut_short():
    """Twenty-three equal neighbours whose inputs the projector joins: none may be left out."""
    asked = asked_images()["features-502"][0]
    encoder = Encoder(asked.vision, kinds()[asked.vision.projector], on_gpu=True)
    picture = pictures(asked)[0]
    assert len(asked.vision.facts["feature_layer"]) == 23
    assert encoder.plan(picture, flash=True) == encoder.full_plan(picture, flash=True)


def test_a_limit_of_tokens_shrinks_the_warm_up_of_blocks_of_tokens():
    """The warm-up of 16 x 16 tokens becomes smaller with the limit, which counts as 16 at least."""
    asked = next(items[0] for items in asked_images().values() if items[0].vision.projector == "deepseek4v")
    kind = kinds()["deepseek4v"]
    unit = kind.patch_of(asked.vision) * kind.merge_of(asked.vision)
    sides = [kind.warm_up_side(asked.vision, limit) // unit for limit in (None, 1000, 100, 3)]
    assert sides == [16, 16, 10, 4]


def test_a_tower_with_experts_must_say_how_many_it_uses():
    """Without that number, or with a list of blocks that is too short, the answer is a labelled bound."""
    for word, key in (("dots3note_v", "expert_used_count"), ("mimovl", "wa_pattern_mode")):
        asked = next(items[0] for items in asked_images().values() if items[0].vision.projector == word)
        facts = {name: value for name, value in asked.vision.facts.items() if name != key}
        damaged = replace(asked.vision, facts=facts)
        assert encoder_buffers(damaged, kinds(), pictures(asked)).basis == "assumed"


def test_the_bound_for_types_that_are_not_known_is_above_the_truth():
    """Without the lists of operations the labelled bound holds for these towers too, one view after the other."""
    for asked in (item for items in asked_images().values() for item in items):
        if not asked.chunk_tokens or asked.together:
            continue
        bound = encoder_buffers(asked.vision, {}, pictures(asked), flash_attn=asked.flash_attn, on_gpu=asked.on_gpu)
        assert bound.basis == "assumed"
        for high, truth in ((bound.warm_up, asked.warm_up), (bound.peak, asked.peak)):
            assert high.device_bytes >= truth[0], (asked.vision.projector, asked.image)
            assert high.host_bytes >= truth[1], (asked.vision.projector, asked.image)
