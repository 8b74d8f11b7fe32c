"""The inverse questions are tight: the value fits and the next one does not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.placement.limits import CONTEXT_STEP, MAX_COUNT, MAX_SIDE, solve
from planner.workload import ImageSize, Workload


@settings(deadline=None)
@given(st.integers(0, MAX_SIDE + 10))
def test_largest_square_image(limit):
    """A memory that holds sides up to ``limit`` gives exactly that side, and names the next."""

    def fails(workload):
        return None if workload.images[0].width <= limit else "CUDA0 is short"

    found = solve("image", Workload(), fails)
    if limit == 0:
        assert (found.value, found.next_value, found.reason) == (None, "1x1", "CUDA0 is short")
    elif limit >= MAX_SIDE:
        assert (found.value, found.next_value) == (f"{MAX_SIDE}x{MAX_SIDE}", None)
    else:
        assert found.value == f"{limit}x{limit}"
        assert found.next_value == f"{limit + 1}x{limit + 1}"


def test_the_aspect_of_the_image_asked_for_is_kept():
    """With an image given, its aspect is scaled."""
    workload = Workload(images=(ImageSize(width=200, height=100),))
    found = solve("image", workload, lambda w: "short" if w.images[0].width > 640 else None)
    assert found.value == "640x320"


@settings(deadline=None)
@given(st.integers(0, 4 * MAX_COUNT))
def test_counts_are_tight(limit):
    """Sequences are counted to the last one that fits."""
    found = solve("sequences", Workload(), lambda w: "short" if w.sequences > limit else None)
    if 0 < limit < MAX_COUNT:
        assert (found.value, found.next_value) == (str(limit), str(limit + 1))


def test_context_stops_at_the_trained_one():
    """With endless memory the trained context is the limit, in the engine's steps."""
    found = solve("context", Workload(), lambda _: None, context_ceiling=32768)
    assert (found.value, found.next_value) == ("32768", None)
    short = solve("context", Workload(), lambda w: "short" if w.context_tokens > 5000 else None, context_ceiling=32768)
    assert int(short.value) + CONTEXT_STEP == int(short.next_value)
    assert int(short.value) <= 5000 < int(short.next_value)
