"""How deep to offload and how to split it: best first, over what is known of each GPU's fixed bytes.

The bytes of places (layers and the output) are exact and add up. What else a GPU holds, its fixed bytes, depends only
on its role in the plan: whether it holds nothing, layers, or also the output, and whether anything stays on the host.
They are learned from every plan that is confirmed by the whole budget; a role not seen yet counts as if it needed no
buffers, so no plan is passed over. The search ends when no untried split could be better than the best confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from itertools import combinations

from planner.frozen import dataclass
from planner.placement.fill import most_places, spread

MAX_TRIALS = 24
Key = tuple[float, ...]
Role = tuple[int, str, bool]  # GPU, what it holds (nothing, layers, output), whether everything is offloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A confirmed split: what each GPU holds beside its places, and what it has free."""

    fixed_bytes: tuple[int, ...]
    fits: bool


@dataclass(slots=True, kw_only=True)
class Search:
    """One search.

    ``costs``: bytes of each place; ``free_bytes``: of each GPU; ``floor_bytes``: what each GPU holds in any plan;
    ``speeds``: None to use all GPUs.

    ``confirm`` takes the number of places of each GPU and returns what the whole budget says of them.
    """

    costs: Sequence[int]
    free_bytes: Sequence[int]
    floor_bytes: Sequence[int]
    speeds: Sequence[float] | None
    confirm: Callable[[tuple[int, ...]], Trial]
    known: dict[Role, int] = field(default_factory=dict)
    tried: dict[tuple[int, ...], Key] = field(default_factory=dict)
    spreads: dict[tuple[int, ...], tuple[int, ...] | None] = field(default_factory=dict)  # by places and capacities

    def run(self) -> tuple[int, ...] | None:
        """Return the best split that fits, None if not even one place does."""
        best: tuple[Key, tuple[int, ...]] | None = None
        for _ in range(MAX_TRIALS):
            candidate = max(self._candidates(), default=None)
            if candidate is None or (best is not None and candidate[0] <= best[0]):
                break
            counts = candidate[1]
            trial = self.confirm(counts)
            self._learn(counts, trial)
            key = self._key(counts)
            self.tried[counts] = key
            if trial.fits and (best is None or key > best[0]):
                best = (key, counts)
        return best[1] if best else None

    def _candidates(self) -> Iterator[tuple[Key, tuple[int, ...]]]:
        """Yield the best untried split for each set of GPUs that may hold something, as deep as it goes."""
        for chosen in self._sets():
            for counts in self._splits(chosen):
                if counts is not None and counts not in self.tried:
                    yield self._key(counts), counts

    def _sets(self) -> Iterator[tuple[int, ...]]:
        devices = range(len(self.free_bytes))
        if self.speeds is None:
            yield from (tuple(devices[: last + 1]) for last in devices)
        else:
            yield from (chosen for n in range(1, len(devices) + 1) for chosen in combinations(devices, n))

    def _splits(self, chosen: tuple[int, ...]) -> Iterator[tuple[int, ...] | None]:
        """Yield the deepest split over ``chosen`` of which the last holds the output: of everything, and of a part."""
        n_all = len(self.costs)
        whole = self._spread(chosen, n_all, everything=True)
        yield whole
        if whole is not None and whole not in self.tried:
            return  # no part is better than that
        deepest = min(n_all - 1, most_places(self.costs, self._capacities(chosen, everything=False)))
        splits = (self._spread(chosen, n, everything=False) for n in range(deepest, 0, -1))
        yield next((counts for counts in splits if counts is not None and counts not in self.tried), None)

    def _spread(self, chosen: tuple[int, ...], n_places: int, *, everything: bool) -> tuple[int, ...] | None:
        """Return the split of the last ``n_places`` that leaves most to spare, the output on the last GPU chosen."""
        *layers, output = self.costs[len(self.costs) - n_places :]
        capacities = self._capacities(chosen, everything=everything)
        capacities[chosen[-1]] -= output
        if capacities[chosen[-1]] < 0:
            return None
        key = (n_places, *capacities)
        if key not in self.spreads:
            self.spreads[key] = spread(layers, capacities)
        counts = self.spreads[key]
        return None if counts is None else tuple(n + (i == chosen[-1]) for i, n in enumerate(counts))

    def _capacities(self, chosen: tuple[int, ...], *, everything: bool) -> list[int]:
        return [
            self.free_bytes[device] - self._fixed(device, "output" if device == chosen[-1] else "layers", everything)
            if device in chosen
            else -1
            for device in range(len(self.free_bytes))
        ]

    def _fixed(self, device: int, holds: str, everything: bool) -> int:  # noqa: FBT001 - part of the role
        return self.known.get((device, holds, everything), self.floor_bytes[device])

    def _learn(self, counts: tuple[int, ...], trial: Trial) -> None:
        for device, holds, everything in self._roles(counts):
            self.known[device, holds, everything] = trial.fixed_bytes[device]

    def _roles(self, counts: tuple[int, ...]) -> list[Role]:
        last = max((device for device, count in enumerate(counts) if count), default=-1)
        everything = sum(counts) == len(self.costs)
        words = [
            "output" if device == last else "layers" if count else "nothing" for device, count in enumerate(counts)
        ]
        return [(device, word, everything) for device, word in enumerate(words)]

    def _key(self, counts: tuple[int, ...]) -> Key:
        """Return what a split is compared by: places, then fewer and faster GPUs if all fits, then spare bytes."""
        n_places = sum(counts)
        spare = float(min(self._spare(counts)))
        if self.speeds is None or n_places < len(self.costs):
            return (float(n_places), 0.0, 0.0, spare)
        used = [device for device, count in enumerate(counts) if count]
        return (float(n_places), -float(len(used)), sum(self.speeds[device] for device in used), spare)

    def _spare(self, counts: tuple[int, ...]) -> Iterator[int]:
        index = len(self.costs) - sum(counts)
        for (device, holds, everything), count in zip(self._roles(counts), counts, strict=True):
            held = sum(self.costs[index : index + count])
            index += count
            yield self.free_bytes[device] - self._fixed(device, holds, everything) - held
