"""ggml's graph allocator: one best-fit arena per device, and the pass that places a whole graph in them.

Source: llama.cpp 0.5.0-dev, ggml 0.25.3, ``ggml-alloc.c``. Knows nothing of models, weights or GPUs: a graph is a
list of steps, each with its operands. The result is the size of each arena, to the byte.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import field

from planner.frozen import dataclass

_ENDLESS = 1 << 62
NOT_OWNED = -1


class Arena:
    """Free memory of one device as blocks sorted by address; the last block is endless."""

    __slots__ = ("alignment", "peak_bytes", "sizes", "starts")

    def __init__(self, alignment: int) -> None:
        """Begin with nothing handed out; sizes are rounded up to a multiple of ``alignment``."""
        self.alignment = alignment
        self.starts = [0]
        self.sizes = [_ENDLESS]
        self.peak_bytes = 0

    def take(self, n_bytes: int) -> int:
        """Return the address of ``n_bytes``: the tightest gap that holds them (the higher of equals), else the end."""
        size = -(-n_bytes // self.alignment) * self.alignment
        sizes = self.sizes
        best = last = len(sizes) - 1
        best_size = _ENDLESS
        for i in range(last):
            if size <= sizes[i] <= best_size:
                best, best_size = i, sizes[i]
        address = self.starts[best]
        self.starts[best] += size
        sizes[best] -= size
        if sizes[best] == 0:
            del self.starts[best], sizes[best]
        self.peak_bytes = max(self.peak_bytes, address + size)
        return address

    def give(self, address: int, n_bytes: int) -> None:
        """Take back ``n_bytes`` at ``address`` and merge them with the free blocks they touch."""
        size = -(-n_bytes // self.alignment) * self.alignment
        starts, sizes = self.starts, self.sizes
        end = address + size
        for i, start in enumerate(starts):
            if start + sizes[i] == address:
                sizes[i] += size
                if i + 1 < len(starts) and starts[i + 1] == end:
                    sizes[i] += sizes[i + 1]
                    del starts[i + 1], sizes[i + 1]
                return
            if start == end:
                starts[i] = address
                sizes[i] += size
                if i > 0 and starts[i - 1] + sizes[i - 1] == address:
                    sizes[i - 1] += sizes[i]
                    del starts[i], sizes[i]
                return
        # tensors of no bytes leave empty blocks behind, so the order may be disturbed: stop at the first not below
        place = next((i for i, start in enumerate(starts) if start >= address), len(starts))
        starts.insert(place, address)
        sizes.insert(place, size)


@dataclass(slots=True, kw_only=True)
class Schedule:
    """What the allocator sees: tensors by number, and the steps that make and read them.

    Tensors in memory that exists already (weights, caches) are left out. ``roots``: number of the tensor a view looks
    into, -1 for a tensor of its own. ``layouts``: equal for tensors of the same type, shape and strides. ``scratch``:
    bytes a tensor asks beyond its own on arenas other than the last (the host's). ``steps``: (tensor, arena, operands)
    in order of execution; ``leafs``: (tensor, arena) placed before. A step with tensor -1 only reads. ``marks``: under
    a key, a step before which a snapshot is taken, and the first tensor number of that step.
    """

    n_bytes: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    layouts: list[Hashable] = field(default_factory=list)
    in_place: list[bool] = field(default_factory=list)
    inputs: set[int] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)
    scratch: dict[int, int] = field(default_factory=dict)
    leafs: list[tuple[int, int]] = field(default_factory=list)
    steps: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    marks: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Free blocks of every arena, (tensor, arena, address) of all that own memory, the number of the next tensor."""

    free: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    live: frozenset[tuple[int, int, int]]
    first: int

    def repeats(self, earlier: Snapshot) -> bool:
        """Whether the allocator stands where it stood: what has not stayed all the time lies where its like lay."""
        stayed = self.live & earlier.live
        return self.free == earlier.free and self._counted(stayed) == earlier._counted(stayed)

    def _counted(self, stayed: frozenset[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
        return {(t - self.first, home, address) for t, home, address in self.live - stayed}


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Sizes of the arenas, the step at each peak, and every tensor's arena, address and lifetime (in steps)."""

    arena_bytes: list[int]
    peak_steps: list[int]
    arenas: list[int]
    addresses: list[int]
    born: list[int]
    died: list[int]
    snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def live_at(self, arena: int, step: int) -> list[int]:
        """Return the tensors that lie in ``arena`` while ``step`` runs, by address."""
        n_steps = step
        live = [
            t
            for t, home in enumerate(self.arenas)
            if home == arena and self.born[t] <= n_steps and (self.died[t] < 0 or self.died[t] >= n_steps)
        ]
        return sorted(live, key=self.addresses.__getitem__)


class _Pass:
    """The state of one walk over a schedule: who reads, who looks into whom, who owns which address."""

    def __init__(self, schedule: Schedule, alignments: Sequence[int]) -> None:
        n = len(schedule.n_bytes)
        self.graph = schedule
        self.pools = [Arena(alignment) for alignment in alignments]
        self.readers = [0] * n
        self.views = [0] * n
        self.home = [NOT_OWNED] * n  # arena of the memory a tensor owns now
        self.last_home = [NOT_OWNED] * n
        self.address = [0] * n
        self.born = [-1] * n
        self.died = [-1] * n
        self.step = -1
        self.peak_steps = [-1] * len(alignments)
        self.snapshots: dict[int, Snapshot] = {}

    def bytes_on(self, tensor: int, arena: int) -> int:
        """Return the bytes ``tensor`` asks of ``arena``."""
        size = self.graph.n_bytes[tensor]
        if arena < len(self.pools) - 1 and tensor in self.graph.scratch:
            size += self.graph.scratch[tensor]
        return size

    def count(self) -> None:
        """Count readers and views of every tensor, and place what is flagged as input, at the bottom."""
        graph, readers = self.graph, self.readers
        for tensor, arena, operands in graph.steps:
            if tensor >= 0:
                if graph.roots[tensor] >= 0:
                    self.views[graph.roots[tensor]] += 1
                if tensor in graph.inputs:
                    self.place(tensor, arena, ())
            for operand in operands:
                readers[operand] += 1
                if operand in graph.inputs:
                    self.place(operand, arena, ())

    def place(self, tensor: int, arena: int, operands: tuple[int, ...]) -> None:
        """Give ``tensor`` memory: an operand's where the operation may work in place, else from ``arena``."""
        graph = self.graph
        if self.home[tensor] >= 0 or graph.roots[tensor] >= 0:
            return
        self.born[tensor] = self.step
        if graph.in_place[tensor]:
            for operand in operands:
                if self.is_reusable(operand, tensor):
                    self.take_over(operand, tensor)
                    return
        pool = self.pools[arena]
        before = pool.peak_bytes
        self.home[tensor] = self.last_home[tensor] = arena
        self.address[tensor] = pool.take(self.bytes_on(tensor, arena))
        if pool.peak_bytes > before:
            self.peak_steps[arena] = self.step

    def is_reusable(self, operand: int, tensor: int) -> bool:
        """Whether ``tensor`` may take the memory of ``operand``: owned, not kept, this reader its last, same layout."""
        return (
            self.home[operand] >= 0
            and self.readers[operand] == 1
            and self.views[operand] == 0
            and operand not in self.graph.outputs
            and self.graph.layouts[operand] == self.graph.layouts[tensor]
        )

    def take_over(self, operand: int, tensor: int) -> None:
        """Move the memory of ``operand`` to ``tensor`` and give back what the operand had beyond it."""
        arena = self.home[operand]
        pool = self.pools[arena]
        self.home[tensor] = self.last_home[tensor] = arena
        self.address[tensor] = address = self.address[operand]
        self.home[operand] = NOT_OWNED
        self.died[operand] = self.step
        if operand not in self.graph.scratch:
            return
        unit = pool.alignment
        had, needs = (-(-self.bytes_on(t, arena) // unit) * unit for t in (operand, tensor))
        if had > needs:
            pool.give(address + needs, had - needs)

    def release(self, tensor: int) -> None:
        """Give the memory of ``tensor`` back, unless it is an output or no longer owns any."""
        arena = self.home[tensor]
        if arena >= 0 and tensor not in self.graph.outputs:
            self.pools[arena].give(self.address[tensor], self.bytes_on(tensor, arena))
            self.home[tensor] = NOT_OWNED
            self.died[tensor] = self.step

    def read_last(self, tensor: int) -> None:
        """Note that nobody will read ``tensor`` again; free it, or the tensor it looks into."""
        root = self.graph.roots[tensor]
        if root < 0:
            self.release(tensor)
            return
        self.views[root] -= 1
        if not self.views[root] and not self.readers[root]:
            self.release(root)

    def run(self) -> None:
        """Place all leafs, then every step's operands and result, releasing what nobody will read again."""
        for tensor, arena in self.graph.leafs:
            self.place(tensor, arena, ())
        self.count()
        home, roots, readers, views = self.home, self.graph.roots, self.readers, self.views
        marks = {step: (key, first) for key, (step, first) in self.graph.marks.items()}
        for step, (tensor, arena, operands) in enumerate(self.graph.steps):
            self.step = step
            if step in marks:
                key, first = marks[step]
                self.snapshots[key] = self.snapshot(first)
            for operand in operands:
                if home[operand] < 0 and roots[operand] < 0:
                    self.place(operand, arena, ())
            if tensor >= 0:
                self.place(tensor, arena, operands)
            for operand in operands:
                left = readers[operand] = readers[operand] - 1
                if not left and not views[operand]:
                    self.read_last(operand)

    def snapshot(self, first: int) -> Snapshot:
        """Return the state before a step whose first tensor number is ``first``."""
        free = tuple((tuple(pool.starts), tuple(pool.sizes)) for pool in self.pools)
        live = frozenset((t, home, self.address[t]) for t, home in enumerate(self.home) if home >= 0)
        return Snapshot(free=free, live=live, first=first)


def reserve(schedule: Schedule, alignments: Sequence[int]) -> Reservation:
    """Return the arenas that ``schedule`` needs, one per entry of ``alignments`` (in bytes; the host's is the last)."""
    walk = _Pass(schedule, alignments)
    walk.run()
    return Reservation(
        arena_bytes=[pool.peak_bytes for pool in walk.pools],
        peak_steps=walk.peak_steps,
        arenas=walk.last_home,
        addresses=walk.address,
        born=walk.born,
        died=walk.died,
        snapshots=walk.snapshots,
    )
