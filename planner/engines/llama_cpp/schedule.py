"""From a graph to arenas: assign and cut it, add copies and keep-alives, and let the allocator place it all.

Source: llama.cpp 0.5.0-dev, ggml-backend.cpp (``ggml_backend_sched_split_graph``, its second half).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from planner.engines.llama_cpp.arena import Reservation, Schedule, reserve
from planner.engines.llama_cpp.backend import Backends, scratch_bytes
from planner.engines.llama_cpp.fusion import KeepAlives, keep_alives
from planner.engines.llama_cpp.graph import IN_PLACE_OPS, Graph, Node, Shape
from planner.engines.llama_cpp.splits import Split, assign, copy_of, cut, input_copies
from planner.quantization import FORMATS

STORED = -1  # number of a tensor in memory that exists already (weights, caches): the allocator does not see it


class _Numbering:
    """Gives tensors their numbers in the schedule, the first time they are met."""

    def __init__(self, backends: Backends) -> None:
        self.schedule = Schedule()
        self.nodes: list[Node] = []
        self.compute_capability = backends.compute_capability

    def number(self, node: Node) -> int:
        if node.index < 0:
            if node.buffer is not None:
                return STORED
            root = -1 if node.root is None else self.number(node.root)
            node.index = len(self.nodes)
            self.nodes.append(node)
            self._describe(node, root)
        return node.index

    def numbers(self, nodes: Iterable[Node]) -> tuple[int, ...]:
        """Return the numbers of those that the allocator sees."""
        found = []
        for node in nodes:
            if node.index >= 0:
                found.append(node.index)
            elif node.buffer is None:
                found.append(self.number(node))
        return tuple(found)

    def _describe(self, node: Node, root: int) -> None:
        schedule = self.schedule
        schedule.roots.append(root)
        schedule.in_place.append(node.op in IN_PLACE_OPS)
        if root >= 0:
            schedule.n_bytes.append(0)
            schedule.layouts.append(None)
            return
        schedule.n_bytes.append(node.n_bytes)
        schedule.layouts.append(layout_of(node))
        if node.is_input:
            schedule.inputs.add(node.index)
        if node.is_output:
            schedule.outputs.add(node.index)
        if node.op == "flash_attn" or FORMATS[node.format].quantized:
            scratch = scratch_bytes(node, self.compute_capability)
            if scratch:
                schedule.scratch[node.index] = scratch


def layout_of(node: Node) -> tuple[str, Shape, Shape]:
    """Return what two tensors must have in common for one to take the other's place."""
    return node.format, node.shape, node.strides


def uses_of(graph: Graph) -> Counter[Node] | None:
    """Return how often each tensor is an operand, None for a graph without experts (which has nothing to fuse)."""
    if not any(node.op in ("argsort", "mul_mat_id") for node in graph.nodes):
        return None
    return Counter(operand for node in graph.nodes for operand in node.operands)


def _all_keep_alives(splits: list[Split], uses: Counter[Node] | None, backends: Backends) -> KeepAlives:
    kept: KeepAlives = {}
    for i, split in enumerate(splits):
        if uses is not None and split.device != backends.host:
            following = splits[i + 1].nodes[0] if i + 1 < len(splits) else None
            keep_alives(split.nodes, following, uses, kept)
    return kept


def schedule_of(
    graph: Graph,
    splits: list[Split],
    uses: Counter[Node] | None,
    backends: Backends,
    marks: Iterable[int] = (),
) -> tuple[Schedule, list[Node]]:
    """Return the steps that the allocator sees, and the node behind each of its numbers.

    ``uses`` are those of the graph before it was cut: copies do not count. ``marks``: layers at whose start
    a snapshot is to be taken.
    """
    numbering = _Numbering(backends)
    number, numbers, schedule = numbering.number, numbering.numbers, numbering.schedule
    kept = _all_keep_alives(splits, uses, backends)
    pipeline = input_copies(graph, backends)
    pipeline += [copies for split in splits for _, copies in split.inputs if backends.n_copies > 1]
    schedule.leafs = [(number(copy), copy.device) for group in pipeline for copy in group]
    schedule.leafs += [(number(leaf), leaf.device) for leaf in graph.leafs if leaf.buffer is None]
    steps = schedule.steps
    starts: dict[int, tuple[int, int]] = {}
    for split in splits:
        for source, copies in split.inputs:
            steps.append((-1, source.device, numbers((source,))))
            steps.append((number(copies[0]), split.device, ()))
        for node in split.nodes:
            if node.layer >= 0 and node.layer not in starts:
                starts[node.layer] = len(steps), len(numbering.nodes)
            steps.append((number(node), node.device, numbers(node.operands)))
            if node in kept:
                steps.append((-1, split.device, numbers(kept[node])))
    schedule.marks = {layer: starts[layer] for layer in marks if layer in starts}
    return schedule, numbering.nodes


@dataclass(slots=True, kw_only=True)
class Scheduled:
    """A graph made ready: its cuts, what the allocator sees of it, and the tensor behind each of its numbers."""

    splits: list[Split]
    schedule: Schedule
    nodes: list[Node]
    backends: Backends

    def with_formats(self, formats: Mapping[str, str]) -> Scheduled:
        """Return the same with the copies of the tensors named in ``formats`` in these, other formats."""
        schedule, nodes = self.schedule, list(self.nodes)
        n_bytes, layouts, scratch = list(schedule.n_bytes), list(schedule.layouts), dict(schedule.scratch)
        for number, old in enumerate(self.nodes):
            if old.op == "copy" and formats.get(old.name, old.format) != old.format:
                nodes[number] = node = copy_of(old, old.device, format_name=formats[old.name])
                n_bytes[number], layouts[number] = node.n_bytes, layout_of(node)
                scratch[number] = scratch_bytes(node, self.backends.compute_capability)
        schedule = replace(schedule, n_bytes=n_bytes, layouts=layouts, scratch=scratch)
        return replace(self, schedule=schedule, nodes=nodes)


@dataclass(slots=True, kw_only=True)
class Simulation:
    """What became of a graph: its cuts, its tensors by their number in the schedule, and the arenas."""

    splits: list[Split]
    nodes: list[Node]
    reservation: Reservation


def scheduled(graph: Graph, backends: Backends, marks: Iterable[int] = ()) -> Scheduled:
    """Assign and cut ``graph``, which can be used once; ``marks`` as for :func:`schedule_of`."""
    uses = uses_of(graph)
    assign(graph, backends)
    splits = cut(graph, backends)
    schedule, nodes = schedule_of(graph, splits, uses, backends, marks)
    return Scheduled(splits=splits, schedule=schedule, nodes=nodes, backends=backends)


def placed(ready: Scheduled) -> Simulation:
    """Return what the allocator makes of a graph that is ready."""
    reservation = reserve(ready.schedule, ready.backends.alignments)
    return Simulation(splits=ready.splits, nodes=ready.nodes, reservation=reservation)


def simulate(graph: Graph, backends: Backends, marks: Iterable[int] = ()) -> Simulation:
    """Assign, cut and place ``graph``, which can be used once; ``marks`` as for :func:`schedule_of`."""
    return placed(scheduled(graph, backends, marks))


def arenas(graph: Graph, backends: Backends) -> tuple[Reservation, list[Node]]:
    """Return the arenas of every device for ``graph`` (used up by it), and its tensors by number."""
    done = simulate(graph, backends)
    return done.reservation, done.nodes
