"""Contiguous places over devices in order: how many fit, and the split that leaves most to spare.

A place is a repeating layer or, last, the output. Engines that count layers give each device one run of places.
Costs are bytes; capacities are what a device has left for places.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate


def fill(costs: Sequence[int], capacities: Sequence[int]) -> tuple[int, ...] | None:
    """Return how many places each device takes when every one takes as many as it can, or None if some are left.

    Taking the longest run at each device in turn is optimal: a run's cost only grows with its length, so whatever
    another assignment leaves for later devices is no shorter.
    """
    return _filled([0, *accumulate(costs)], capacities)


def _filled(sums: Sequence[int], capacities: Iterable[int]) -> tuple[int, ...] | None:
    """Return what ``fill`` returns; ``sums[i]`` is the cost of the first i places."""
    counts, first = [], 0
    for capacity in capacities:
        last = max(first, bisect_right(sums, sums[first] + capacity) - 1)
        counts.append(last - first)
        first = last
    return tuple(counts) if first == len(sums) - 1 else None


def most_places(costs: Sequence[int], capacities: Sequence[int]) -> int:
    """Return how many of the *last* places fit on the devices together (0 if not even the last one)."""
    low, high = 0, len(costs)
    while low < high:
        middle = (low + high + 1) // 2
        if fill(costs[len(costs) - middle :], capacities) is None:
            high = middle - 1
        else:
            low = middle
    return low


def spread(costs: Sequence[int], capacities: Sequence[int]) -> tuple[int, ...] | None:
    """Return the split of all places whose fullest device has most bytes to spare, or None if they do not fit.

    The spare bytes are bisected to one byte; equal devices get equal runs as far as places allow.
    """
    sums = [0, *accumulate(costs)]
    best = _filled(sums, capacities)
    if best is None:
        return None
    low, high = 0, max(capacities)
    while low < high:
        middle = (low + high + 1) // 2
        counts = _filled(sums, [capacity - middle for capacity in capacities])
        if counts is None:
            high = middle - 1
        else:
            low, best = middle, counts
    return best
