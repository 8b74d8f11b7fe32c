"""What vLLM's releases default to and charge to the share, as their sources have it."""

import builders as b
import pytest

from planner.catalog import load_model
from planner.engines.largest_image import EncoderItem
from planner.engines.span import Span, fixed
from planner.engines.vllm.outside import graph_span, kept_by_torch, n_sizes, outside_torch, used_by_others, whole_card
from planner.engines.vllm.profile import dummy_video
from planner.engines.vllm.settings import Traits, VllmSettings, default_batch, resolve
from planner.machine import Gpu
from planner.units import GIB
from planner.workload import Workload

IMAGES, WINDOWS = Traits(multimodal=True), Traits(windowed=True)


def gpu(gib, name="", capability=None, free=None):
    """A card of that many GiB."""
    n_bytes = int(gib * GIB)
    return Gpu(
        name=name, total_bytes=n_bytes, free_bytes=n_bytes if free is None else free, compute_capability=capability
    )


def started(version, traits=None, length=8192, card=None, **given):
    """What a start runs with."""
    return resolve(VllmSettings(max_model_len=length, **given), Workload(), card or gpu(40), version, traits)


@pytest.mark.parametrize(
    ("version", "traits", "length", "tokens"),
    [
        ("0.5.2", None, 131072, 131072),
        ("0.5.3", None, 131072, 512),
        ("0.6.4", None, 131072, 512),
        ("0.6.5", None, 131072, 2048),
        ("0.7.3", None, 32768, 32768),
        ("0.7.3", None, 1024, 2048),
        ("0.7.3", WINDOWS, 65536, 65536),
        ("0.6.2", IMAGES, 65536, 4096),
        ("0.7.3", IMAGES, 65536, 65536),
        ("0.7.3", IMAGES, 2048, 5120),
    ],
)
def test_batch_before_v1(version, traits, length, tokens):
    """A prompt is cut by itself beyond 32,768 positions, not with windows, not from 0.6.3 with images."""
    found = started(version, traits, length)
    assert (found.max_num_batched_tokens, found.max_num_seqs, found.old_core) == (tokens, 256, True)


def test_batch_of_v1_by_release_and_card():
    """0.8.0 to 0.8.3: 1,024 sequences for all; 0.8.4 by name; 0.8.5 by memory; from 0.9 not for an A100."""
    h100, a100, small = gpu(79, "NVIDIA H100"), gpu(79, "A100 SXM 80GB"), gpu(44, "L40S")
    assert [default_batch(card, (0, 8, 3)) for card in (h100, a100, small)] == [
        (8192, 1024),
        (2048, 1024),
        (2048, 1024),
    ]
    assert [default_batch(card, (0, 8, 4)) for card in (h100, a100, small)] == [(8192, 1024), (2048, 256), (2048, 256)]
    assert [default_batch(card, (0, 8, 5)) for card in (h100, a100, small)] == [(8192, 1024), (8192, 1024), (2048, 256)]
    assert [default_batch(card, (0, 9, 0)) for card in (h100, a100, small)] == [(8192, 1024), (2048, 256), (2048, 256)]


def test_old_gpus_and_cross_attention_keep_the_engine_before_v1_to_0_10():
    """V1 needs 8.0 and no cross-attention; from 0.11 there is no other engine."""
    turing = gpu(15, "T4", (7, 5))
    assert started("0.8.5", card=turing).old_core
    assert started("0.10.2", Traits(crossed=True)).old_core
    assert not started("0.8.5", card=gpu(24, "RTX 3090", (8, 6))).old_core
    assert not started("0.11.0", card=turing).old_core


@pytest.mark.parametrize(
    ("version", "whole", "kept"),
    [
        ("0.6.3.post1", False, False),
        ("0.6.4", True, True),
        ("0.6.6", False, True),
        ("0.7.3", False, False),
        ("0.8.0", True, True),
        ("0.9.0", True, True),
        ("0.9.1", False, False),
        ("0.33.0", False, False),
    ],
)
def test_what_is_charged_outside_torch(version, whole, kept):
    """The context and other processes count in 0.6.4 and in V1 to 0.9.0; what torch keeps, also in 0.6.5 and 0.6.6."""
    found = started(version)
    context, compute = fixed(400), Span(low=1, expected=2, high=30)
    inside, outside = outside_torch(context, compute, found)
    assert whole_card(found) == whole
    assert kept_by_torch(found, compute).high == (30 if kept else 0)
    assert outside == (fixed(0) if whole else context)
    assert used_by_others(gpu(40, free=30 * GIB), found) == (10 * GIB if whole else 0)
    plain = outside_torch(context, fixed(0), started("0.33.0"))[0]
    assert inside.high - plain.high == (400 if whole else 0) + (30 if kept else 0)


def test_graphs_are_counted_by_piece_and_size():
    """0.9.2 on an A100: 37 pieces in 67 sizes took 2.24 GiB; 0.19.0 on an L40S: 33 in 51 took 0.65 GiB."""
    old, new = started("0.9.2"), started("0.19.0")
    assert (n_sizes(old), n_sizes(new), n_sizes(started("0.19.0", max_num_seqs=1))) == (67, 51, 2)
    for found, n_layers, measured in ((old, 36, 2.24), (new, 32, 0.65)):
        span = graph_span(n_layers, found, enforce_eager=False)
        assert span.low <= measured * GIB <= span.high
    assert graph_span(36, old, enforce_eager=True) == fixed(0)
    assert graph_span(36, started("0.6.2"), enforce_eager=False).high == 3 * GIB


def test_the_trial_video_of_a_long_context():
    """0.23.0 with 128,000 positions says 114,688 tokens: seven steps of the largest image."""
    image = EncoderItem(tokens=16384, patches=65536)
    assert dummy_video(image, 128000, (16, 14), (0, 23, 0)).tokens == 114688
    assert dummy_video(image, 8192, (16, 14), (0, 23, 0)) == image
    assert dummy_video(image, 10**6, (16, 14), (0, 9, 0)).patches == 8 * 65536


def test_a_long_context_reserves_for_the_video_unless_none_is_allowed():
    """The plan of a model whose video holds more than its image grows with the context."""
    from test_vllm import item, plan

    model = load_model("qwen2.5-vl-7b", None, "hf")
    found = plan(model, b.box(80), "0.23.0", 128000)
    long = item(found, "compute")[0].expected_bytes
    assert any("a video of 114688 tokens" in note for note in found.notes)
    without = plan(model, b.box(80), "0.23.0", 128000, limit_mm_per_prompt={"image": 1, "video": 0})
    assert long > 3 * item(without, "compute")[0].expected_bytes
    assert not any("video" in note for note in without.notes)
