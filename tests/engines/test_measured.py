"""Models known by measured peaks: what the points leave open is said, and nothing beyond them is promised."""

import time
from pathlib import Path

import builders as b
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.engines.measured import MeasuredSettings, measured_engine, measured_peak
from planner.errors import SourceError, UsageError
from planner.model import Measurement
from planner.sources.measured import byte_range, measured_model, read_measured
from planner.workload import Workload

GB, GIB = 10**9, 1 << 30
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "measured-vision-model.yaml"
ENGINE = measured_engine()


def verdict(dtype, gib, batch=1):
    """Whether the example fits a card with so many GiB free."""
    model = read_measured(EXAMPLE)
    found = ENGINE.budget(model, Workload(batch=batch), b.box(gib), MeasuredSettings(dtype=dtype))
    return not found.short_devices


@pytest.mark.parametrize(
    ("card", "gib", "dtype", "fits"),
    [
        ("T4", 14.56, "fp32", False),
        ("T4", 14.56, "fp16", True),
        ("RTX 3090", 23.56, "fp32", True),
        ("A10G", 22.07, "fp32", True),
        ("L4", 22.07, "fp16", True),
        ("RTX 3070", 7.8, "fp16", False),
        ("RTX 3070", 7.8, "fp32", False),
    ],
)
def test_the_example_on_five_cards(card, gib, dtype, fits):
    """14.2 GB in fp32 and 8.8 GB in fp16 at batch 1: neither fits 8 GB, fp32 is too tight for a T4."""
    assert verdict(dtype, gib) is fits, card


def test_batch_two_in_full_precision_needs_more_than_was_there():
    """The run that ran out of memory bounds the answer from below, and 16 GB are not promised."""
    answer = measured_peak(read_measured(EXAMPLE).measurements, "fp32", 2, None)
    assert answer.span.low >= 0.95 * 15.5 * GB
    assert not verdict("fp32", 15.5, batch=2)
    assert answer.basis == "modelled"


def test_batch_two_in_half_precision_is_a_range():
    """With three unknowns and two peaks the answer is a range: above the first peak, below twice its activations."""
    answer = measured_peak(read_measured(EXAMPLE).measurements, "fp16", 2, None)
    assert 8.7 * GB < answer.span.low <= answer.span.expected <= answer.span.high
    # activations double at most: not above the fp16 peak plus what the step to fp32 added
    assert answer.span.high <= 1.05 * (8.85 * GIB + (14.25 * GIB - 8.75 * GB)) + 1


def test_one_point_answers_itself_only():
    """One point is its own answer; any other question is refused with what to measure."""
    points = (Measurement(dtype="fp16", batch=4, low_bytes=5 * GB, high_bytes=5 * GIB),)
    assert measured_peak(points, "fp16", 4, None).basis == "measured"
    with pytest.raises(UsageError, match="measure another"):
        measured_peak(points, "fp16", 8, None)
    with pytest.raises(UsageError, match="no measured points"):
        measured_peak((), "fp16", 8, None)


def truth(weights, activations, constant, dtype, batch, pixels):
    """A peak by the law that the fit assumes."""
    size = {"fp32": 4, "fp16": 2}[dtype]
    return weights * size + activations * size * batch * pixels + constant


@settings(max_examples=40, deadline=None)
@given(
    weights=st.integers(10**6, 10**10),
    activations=st.integers(1, 20_000),
    constant=st.integers(0, 10**9),
    batch=st.integers(1, 32),
    dtype=st.sampled_from(["fp32", "fp16"]),
)
def test_range_holds_the_truth(weights, activations, constant, batch, dtype):
    """Points that follow the law, printed to 0.1 GB, leave a range that holds every other truth of that law."""
    asked = [("fp32", 1), ("fp16", 1), ("fp16", 4)]
    points = []
    for kind, n in asked:
        peak = truth(weights, activations, constant, kind, n, 10**5)
        low, high = byte_range(f"{peak / GB:.1f}GB")
        points.append(Measurement(dtype=kind, batch=n, n_pixels=10**5, low_bytes=low, high_bytes=high))
    answer = measured_peak(tuple(points), dtype, batch, 10**5)
    assert answer.span.low <= truth(weights, activations, constant, dtype, batch, 10**5) <= answer.span.high


def test_a_larger_question_never_takes_less():
    """More items, more pixels or a wider type never lower the upper bound."""
    points = read_measured(EXAMPLE).measurements
    highs = [measured_peak(points, "fp16", batch, None).span.high for batch in (2, 3, 4, 8)]
    assert highs == sorted(highs)
    assert measured_peak(points, "fp16", 2, None).span.high <= measured_peak(points, "fp32", 2, None).span.high


def test_noise_widens_the_points_and_is_said():
    """Points off the law by a few percent are widened until they agree; contradictions are refused."""
    noisy = [("fp32", 1, 10.0), ("fp32", 2, 14.0), ("fp32", 3, 19.0), ("fp32", 4, 22.0)]
    points = tuple(Measurement(dtype=d, batch=n, low_bytes=int(p * GB), high_bytes=int(p * GB)) for d, n, p in noisy)
    assert measured_peak(points, "fp32", 8, None).widened_percent in {2, 5}
    falling = (
        Measurement(dtype="fp32", batch=1, low_bytes=20 * GB, high_bytes=20 * GB),
        Measurement(dtype="fp32", batch=8, low_bytes=5 * GB, high_bytes=5 * GB),
    )
    with pytest.raises(UsageError, match="contradict"):
        measured_peak(falling, "fp32", 2, None)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("14.2GB", 14_150_000_000, int(14.25 * GIB)),
        ("8GiB", int(7.5 * GIB), int(8.5 * GIB)),
        ("9012MiB", int(9011.5 * 2**20), int(9012.5 * 2**20)),
        (123456, 123456, 123456),
    ],
)
def test_what_a_size_can_mean(text, low, high):
    """GB is 10^9 or 2^30, and the last digit was rounded."""
    assert byte_range(text) == (low, high)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"name": "x"},
        {"name": "x", "points": []},
        {"name": "x", "points": [{"dtype": "fp32"}]},
        {"name": "x", "points": [{"dtype": "fp32", "peak": "1GB", "out_of_memory_at": "2GB"}]},
        {"name": "x", "points": [{"dtype": "fp64", "peak": "1GB"}]},
        {"name": "x", "points": [{"dtype": "fp32", "peak": "lots"}]},
        {"name": "x", "points": [{"dtype": "fp32", "peak": "1GB", "image": "0x5"}]},
        {"name": "x", "points": [{"dtype": "fp32", "peak": -1}]},
    ],
)
def test_malformed_files(data):
    """A file that is none is refused in one line."""
    with pytest.raises((SourceError, UsageError)) as caught:
        measured_model(data, "points.yaml")
    assert "\n" not in str(caught.value)


def test_twelve_points_are_fitted_at_once():
    """The most points that are fitted take under a second."""
    points = tuple(
        Measurement(dtype="fp32", batch=n, low_bytes=n * GB, high_bytes=n * GB + GB // 2) for n in range(1, 13)
    )
    start = time.process_time()
    assert measured_peak(points, "fp16", 20, None).span.high > 0
    assert time.process_time() - start < 1
    with pytest.raises(UsageError, match="at most 12"):
        measured_peak((*points, Measurement(dtype="fp32", batch=50, low_bytes=GB, high_bytes=None)), "fp16", 20, None)


def test_unreadable_files(tmp_path):
    """Missing, binary and overlong files are one line each."""
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long.yaml").write_text("a" * 2_000_000)
    for name in ("missing.yaml", "binary.yaml", "long.yaml"):
        with pytest.raises(SourceError):
            read_measured(tmp_path / name)
