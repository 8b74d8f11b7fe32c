"""Fewer layers, same arena: runs of equal layers are simulated a few times only, and the result proves itself.

The allocator is a deterministic machine. Where its state at the start of a layer (free blocks and live tensors,
numbered from that layer) equals its state some periods earlier, every further period repeats what has been seen. The
simulation keeps just enough periods to see that happen after one or two of them, then enough for any cycle of up to
three; where neither shows, the full depth is simulated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from planner.engines.llama_cpp.arena import Snapshot
    from planner.engines.llama_cpp.splits import Split
    from planner.engines.llama_cpp.traits import GraphRequest

LONGEST_PERIOD = 8
CYCLES = (1, 2, 3, 6)  # what the second attempt looks for: the periods left out are a multiple of all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """``n_periods`` equal groups of ``period`` layers from layer ``first`` on, of which ``kept`` are simulated."""

    first: int
    period: int
    n_periods: int
    kept: int
    lags: tuple[int, ...]  # after so many periods the state must repeat, after any one of them

    @property
    def layers(self) -> range:
        """The layers simulated."""
        return range(self.first, self.first + self.kept * self.period)

    @property
    def marks(self) -> list[int]:
        """The first layers of the periods to be compared: of the last one simulated, before it of one for each lag."""
        first = list(self.layers[:: self.period])
        return [first[-1], *(first[-1 - lag] for lag in self.lags if lag < len(first))]


def layer_signatures(request: GraphRequest) -> list[Hashable]:
    """Return one value per layer; layers of equal value are the same operations on the same devices."""
    language, host = request.language, request.backends.host
    stored: list[list[Hashable]] = [[] for _ in request.layer_devices]
    for tensor in language.tensors:
        if tensor.name.startswith("blk."):
            index, _, suffix = tensor.name[4:].partition(".")
            device = request.weights.get(tensor.name)
            if device is not None:
                copied = tensor.format if device == host and request.sends_host_weights else ""
                stored[int(index)].append((suffix, tensor.shape, device, copied))
    sources = {getattr(layer.mixer, "kv_source_layer", None) for layer in language.layers}
    step, deepstack = int(request.rotary_step), request.deepstack
    n_sparse = language.facts.get("sparse_layers")
    return [
        (
            layer,
            tuple(stored[i]),
            request.layer_devices[i],
            request.cache_devices[i],
            i if i in sources or i == language.n_layers - 1 or i in deepstack else -1,
            (i + 1) % step == 0 if step else False,
            isinstance(n_sparse, int) and i < n_sparse,
        )
        for i, layer in enumerate(language.layers)
    ]


def find_runs(signatures: Sequence[Hashable]) -> list[Run]:
    """Return the runs of repeated groups of layers that are worth cutting short, from the first layer on."""
    numbers: dict[Hashable, int] = {}
    words = [numbers.setdefault(signature, len(numbers)) for signature in signatures]
    runs: list[Run] = []
    i = 0
    while i < len(words):
        run = max((_run_at(words, i, period) for period in range(1, LONGEST_PERIOD + 1)), key=_saved)
        if _saved(run) > 0:
            runs.append(run)
            i += run.period * run.n_periods
        else:
            i += 1
    return runs


def _saved(run: Run) -> int:
    return (run.n_periods - run.kept) * run.period


def _run_at(words: Sequence[int], first: int, period: int) -> Run:
    n_equal = period
    while first + n_equal < len(words) and words[first + n_equal] == words[first + n_equal - period]:
        n_equal += 1
    n_periods = n_equal // period
    # the residual stream alternates between two places, so an odd period repeats after two
    lag = 1 if period % 2 == 0 else 2
    kept = min(n_periods, 3 if lag == 1 else 4 + n_periods % 2)
    return Run(first=first, period=period, n_periods=n_periods, kept=kept, lags=(lag,))


def lengthened(runs: Sequence[Run]) -> list[Run]:
    """Return the runs for a second attempt: enough periods for states that take longer to repeat."""
    most = max(CYCLES)
    return [replace(run, kept=min(run.n_periods, most + (run.n_periods - most) % most), lags=CYCLES) for run in runs]


def kept_layers(n_layers: int, runs: Sequence[Run]) -> list[int]:
    """Return the numbers of the layers that are simulated."""
    left_out = {i for run in runs for i in range(run.layers.stop, run.first + run.n_periods * run.period)}
    return [i for i in range(n_layers) if i not in left_out]


def is_proven(runs: Sequence[Run], snapshots: dict[int, Snapshot], splits: Sequence[Split], n_copies: int) -> bool:
    """Whether the simulated periods show that the ones left out change nothing."""
    return all(_repeats(run, snapshots) for run in runs) and (n_copies == 1 or not _copies_inside(runs, splits))


def _repeats(run: Run, snapshots: dict[int, Snapshot]) -> bool:
    if run.kept == run.n_periods:
        return True
    last, *before = run.marks
    return last in snapshots and any(mark in snapshots and snapshots[last].repeats(snapshots[mark]) for mark in before)


def _copies_inside(runs: Sequence[Run], splits: Sequence[Split]) -> bool:
    """Whether a copy that pipelining keeps to the end is made in each period of a run, not only where it begins."""
    return any(
        source.layer in run.layers[run.period :] and split.nodes[0].layer in run.layers
        for split in splits
        for source, _ in split.inputs
        for run in runs
    )
