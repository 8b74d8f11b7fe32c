"""Parts of the encoder model: what its data may say, what a strange file does, where shortening is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from encoder_rows import fresh_rows, kinds, table_rows, tower, towers
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.engines.llama_cpp.encoder import Encoder, Picture, encoder_buffers, encoder_kinds, encoder_weights
from planner.engines.llama_cpp.encoder.kinds import STAGES
from planner.engines.llama_cpp.encoder.weights import buffer_bytes
from planner.errors import SourceError
from planner.model import Tensor, Vision

# ---- shortening


def sizes_for(vision: Vision) -> list[Picture]:
    """Return the warm-up picture and, where the tower takes any size, two more."""
    kind = kinds()[vision.projector]
    side = kind.warm_up_side(vision)
    unit = kind.patch_of(vision) * kind.graph_merge_of(vision)
    found = [Picture(width=side, height=side)]
    if kind.warm_up.by in ("tokens", "limit", "pixels"):
        found += [Picture(width=unit * 10, height=unit * 7), Picture(width=unit * 31, height=unit * 20)]
    return found


def towers_of_tables_and_fresh() -> list[Vision]:
    """Return every tower there is."""
    return [tower(name) for name in towers()] + [rows[0].vision for rows in fresh_rows().values()]


@pytest.mark.parametrize("on_gpu", [True, False])
def test_shortened_towers_give_the_bytes_of_the_full_depth(on_gpu):
    """Wherever a shortened tower proves itself, both arenas are those of the full one; and most do."""
    n_proven = n_asked = 0
    for vision in towers_of_tables_and_fresh():
        encoder = Encoder(vision, kinds()[vision.projector], on_gpu=on_gpu)
        for picture in sizes_for(vision) if encoder.runs else ():
            for flash in (True, False):
                short, full = encoder.planned(picture, flash=flash, runs=encoder.runs), None
                n_asked += 1
                if short is not None:
                    n_proven += 1
                    full = encoder.full_plan(picture, flash=flash)
                    assert (short.device_bytes, short.host_bytes) == (full.device_bytes, full.host_bytes)
    assert n_proven > n_asked / 2


# ---- weights


def test_a_file_with_two_towers_holds_the_patch_embedding_twice():
    """Both modalities ask for the tensor of that name; everything else is loaded once."""
    vision = tower("gemma-4-e2b-av")
    every = sum(t.n_elements * (2 if t.format == "f16" else 4) for t in vision.tensors)
    patches = next(t for t in vision.tensors if t.name == "v.patch_embd.weight")
    assert encoder_weights(vision, on_gpu=True).counted_bytes == every + patches.n_elements * 2


def test_an_audio_tower_that_the_file_does_not_announce_is_not_loaded():
    """Without the announcement neither its tensors nor an arena for it are there."""
    vision = tower("gemma-4-e2b-av")
    silent = replace(vision, facts={**vision.facts, "has_audio_encoder": False})
    plain = tower("gemma-4-e2b")
    assert encoder_weights(silent, on_gpu=True) == encoder_weights(plain, on_gpu=True)
    assert encoder_buffers(silent, kinds()).warm_up == encoder_buffers(plain, kinds()).warm_up


def test_scalars_and_blocks_that_do_not_run_are_not_loaded():
    """Ranges of clipped products are read as numbers; blocks beyond the file's own count stay on disk."""
    vision = tower("gemma-4-e2b")
    more = (
        Tensor(name="v.blk.0.attn_q.input_max", shape=(1,), format="f32"),
        Tensor(name=f"v.blk.{vision.n_layers}.ffn_up.weight", shape=(768, 3072), format="f16"),
    )
    grown = replace(vision, tensors=vision.tensors + more)
    assert encoder_weights(grown, on_gpu=True) == encoder_weights(vision, on_gpu=True)


def test_quantised_rows_are_completed_on_cuda_only():
    """A row of 1152 elements is completed to 1536, once per tensor; the host pads to 32 bytes only."""
    tensor = Tensor(name="v.blk.0.attn_q.weight", shape=(1152, 1152), format="q8_0")
    stored = 1152 // 32 * 34 * 1152
    assert buffer_bytes([tensor], on_gpu=False) == stored
    assert buffer_bytes([tensor], on_gpu=True) == -(-(stored + 384 // 32 * 34) // 128) * 128


# ---- strange files


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": ()},
        {"n_layers": 10**9},
        {"n_heads": 0},
        {"patch_size": 0},
        {"n_embd": -1},
        {"facts": {"spatial_merge_size": 10**6}},
        {"facts": {"spatial_merge_size": 7}},
    ],
    ids=str,
)
def test_a_damaged_file_gets_a_bound_and_no_traceback(change):
    """Whatever does not fit its kind is answered with the labelled bound."""
    vision = replace(tower("qwen3-vl-8b"), **change)
    got = encoder_buffers(vision, kinds(), [Picture(width=64, height=64)])
    assert got.basis == "assumed"
    assert got.peak.device_bytes >= got.warm_up.device_bytes >= 0


def test_a_tower_of_any_size_needs_no_image_size():
    """Files may say 0 where the size is free; the warm-up picture does not come from it."""
    vision = tower("qwen3-vl-8b")
    free = encoder_buffers(replace(vision, image_size=0), kinds())
    assert (free.basis, free.warm_up) == ("exact", encoder_buffers(vision, kinds()).warm_up)


@given(missing=st.integers(min_value=0, max_value=10**6), width=st.integers(1, 5000), height=st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_a_missing_tensor_never_raises(missing, width, height):
    """A file without one of its tensors is still answered."""
    vision = tower("kimi-vl-a3b")
    i = missing % len(vision.tensors)
    damaged = replace(vision, tensors=vision.tensors[:i] + vision.tensors[i + 1 :])
    got = encoder_buffers(damaged, kinds(), [Picture(width=width, height=height)])
    assert got.basis in ("exact", "assumed")


@given(width=st.integers(1, 300), height=st.integers(1, 300), more=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_bounds_grow_with_the_picture(width, height, more):
    """More pixels never lower the bound of a type that is not known."""
    vision = tower("glm-4.1v-9b")
    small = encoder_buffers(vision, {}, [Picture(width=width * 14, height=height * 14)]).peak
    large = encoder_buffers(vision, {}, [Picture(width=(width + more) * 14, height=height * 14)]).peak
    assert large.device_bytes >= small.device_bytes


# ---- the data


def test_every_stage_is_used_by_some_type():
    """No stage is there for nothing."""
    used = {stage.word for kind in kinds().values() for stage in kind.stages}
    assert used == set(STAGES)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("plain", "not a mapping"),
        ({"merge": 2}, "'stages'"),
        ({"stages": ["dance"]}, "unknown stage 'dance'"),
        ({"stages": [{"mlp": {"up": "a", "sideways": "b"}}]}, "options are up, down, gate, squared"),
        ({"stages": [{"mlp": {}, "joined": {}}]}, "a stage is a word"),
        ({"stages": [], "warm_up": {"by": "chance"}}, "warm_up.by 'chance'"),
        ({"stages": [], "size": 3}, "size"),
    ],
)
def test_data_that_is_not_understood_is_refused_in_one_line(entry, message):
    """The error names the entry and what is wrong with it."""
    with pytest.raises(SourceError, match=message) as caught:
        encoder_kinds({"projectors": {"odd": entry}})
    assert "odd" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [{}, {"projectors": []}], ids=str)
def test_data_without_projectors_is_refused(data):
    """A file of another kind is no list of encoders."""
    with pytest.raises(SourceError, match="no mapping 'projectors'"):
        encoder_kinds(data)


def test_warm_up_pictures_are_those_the_engine_reports():
    """The side of the square picture reserved for at load, as the engine logs it."""
    for name, side in {
        "llava-1.5-7b": 336,
        "qwen2.5-vl-7b": 1288,
        "qwen3-vl-8b": 1472,
        "mistral-small-3.1-24b": 448,
        "gemma-4-e2b": 768,
        "lfm2-vl-450m": 512,
    }.items():
        vision = table_rows()[name][0].vision
        assert kinds()[vision.projector].warm_up_side(vision) == side


def test_only_some_warm_ups_follow_the_users_token_limit():
    """--image-max-tokens changes the warm-up where the engine derives it from the limit, nowhere else."""
    lfm2, qwen = tower("lfm2-vl-450m"), tower("qwen3-vl-8b")
    assert kinds()["lfm2"].warm_up_side(lfm2, 1024) == 1024
    assert kinds()["qwen3vl_merger"].warm_up_side(qwen, 1024) == 1472
