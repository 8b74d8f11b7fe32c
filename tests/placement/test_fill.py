"""Runs of places over devices: compared with every possible split."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.placement.fill import fill, most_places, spread

COSTS = st.lists(st.integers(1, 9), min_size=1, max_size=7)
CAPACITIES = st.lists(st.integers(0, 25), min_size=1, max_size=4)


def splits(n_places, n_devices):
    """Return every way to give ``n_devices`` runs that sum to ``n_places``."""
    return [counts for counts in product(range(n_places + 1), repeat=n_devices) if sum(counts) == n_places]


def spare(costs, capacities, counts):
    """Return what the fullest device has left."""
    left, index = [], 0
    for capacity, count in zip(capacities, counts, strict=True):
        left.append(capacity - sum(costs[index : index + count]))
        index += count
    return min(left)


@settings(max_examples=300, deadline=None)
@given(COSTS, CAPACITIES)
def test_fill_finds_a_split_whenever_one_exists(costs, capacities):
    """The greedy fill fits exactly when some split fits."""
    exists = any(spare(costs, capacities, counts) >= 0 for counts in splits(len(costs), len(capacities)))
    assert (fill(costs, capacities) is not None) == exists


@settings(max_examples=300, deadline=None)
@given(COSTS, CAPACITIES)
def test_spread_leaves_the_most_to_spare(costs, capacities):
    """No other split leaves the fullest device more bytes."""
    counts = spread(costs, capacities)
    best = max(spare(costs, capacities, other) for other in splits(len(costs), len(capacities)))
    assert counts is None if best < 0 else spare(costs, capacities, counts) == best


@settings(max_examples=300, deadline=None)
@given(COSTS, CAPACITIES)
def test_most_places_is_the_deepest_tail(costs, capacities):
    """One place more than the answer never fits."""
    n_places = most_places(costs, capacities)
    assert fill(costs[len(costs) - n_places :], capacities) is not None
    assert n_places == len(costs) or fill(costs[len(costs) - n_places - 1 :], capacities) is None


@settings(max_examples=200, deadline=None)
@given(COSTS, CAPACITIES, st.integers(0, 25))
def test_more_memory_never_hurts(costs, capacities, extra):
    """One more device, or more bytes on one, never makes fewer places fit."""
    n_places = most_places(costs, capacities)
    assert most_places(costs, [*capacities, extra]) >= n_places
    assert most_places(costs, [capacities[0] + extra, *capacities[1:]]) >= n_places
