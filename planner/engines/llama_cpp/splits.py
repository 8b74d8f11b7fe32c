"""ggml's scheduler: which device runs each operation, where the graph is cut, and what is copied across a cut.

Source: llama.cpp 0.5.0-dev, ggml-backend.cpp (``ggml_backend_sched_split_graph``). Devices are the GPUs in order,
then the host. Tensors copied to another device become ``Copy`` nodes at the head of the first cut that reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from planner.engines.llama_cpp.backend import OFFLOAD_BATCH, Backends, gpu_supports, offload_batch
from planner.engines.llama_cpp.graph import VIEW_OPS, Graph, Node

OPEN = -1


@dataclass(slots=True, kw_only=True)
class Split:
    """Consecutive operations on one device, and the (tensor, its copies on that device) it is the first to read."""

    device: int
    nodes: list[Node] = field(default_factory=list)
    inputs: list[tuple[Node, list[Node]]] = field(default_factory=list)


def supports(node: Node, device: int, backends: Backends) -> bool:
    """Whether ``device`` can run ``node``; the host runs everything."""
    return device == backends.host or gpu_supports(node, device, backends)


def _home(node: Node) -> int:
    """Return the device whose memory holds ``node``: its buffer's, else where it is assigned (or its root is)."""
    if node.buffer is not None:
        return node.buffer
    if node.device == OPEN and node.root is not None:
        return node.root.device
    return node.device


def _buffer_device(buffer: int, node: Node, backends: Backends) -> int:
    return buffer if supports(node, buffer, backends) else OPEN


def _fixed_device(node: Node, backends: Backends) -> int:
    """Return the device that memory which exists already dictates for ``node``, or OPEN."""
    if node.buffer is not None:
        return node.buffer if node.op == "none" else _buffer_device(node.buffer, node, backends)
    if node.is_input:
        return backends.host
    if node.op in ("rope", "flash_attn"):
        return OPEN
    for operand in node.operands:
        if operand.is_weight and operand.root is None and operand.buffer is not None:
            return _weight_device(node, operand.buffer, backends)
    return OPEN


def _weight_device(node: Node, buffer: int, backends: Backends) -> int:
    """Return where an operation with a weight runs: with the weight, or on a GPU if the batch pays for the copy."""
    if buffer == backends.host and backends.op_offload and offload_batch(node) >= OFFLOAD_BATCH:
        for device in range(backends.n_gpus):
            if gpu_supports(node, device, backends):
                return device
    return _buffer_device(buffer, node, backends)


def _sweep(nodes: Iterable[Node], backends: Backends, *, from_host: bool) -> None:
    """Spread assignments to following open nodes; unless ``from_host``, the host's stop the spreading."""
    current = OPEN
    for node in nodes:
        if node.device != OPEN:
            current = OPEN if node.device == backends.host and not from_host else node.device
        elif current != OPEN and supports(node, current, backends):
            node.device = current


def _most_readable(node: Node, backends: Backends) -> int:
    """Return the first device on which the most operands of ``node`` can be read."""
    best, n_best = OPEN, -1
    for device in range(backends.n_gpus + 1):
        if supports(node, device, backends):
            n_readable = sum(1 for operand in node.operands if _home(operand) == device)
            if n_readable > n_best:
                best, n_best = device, n_readable
    return best


def assign(graph: Graph, backends: Backends) -> None:
    """Give every node and leaf a device. Devices set before (pinned nodes) stay."""
    for node in (*graph.leafs, *graph.nodes):
        if node.device == OPEN:
            node.device = _fixed_device(node, backends)
    workers = [node for node in graph.nodes if node.op not in VIEW_OPS]
    _sweep(workers, backends, from_host=False)
    _sweep(reversed(workers), backends, from_host=False)
    _sweep(workers, backends, from_host=True)
    _sweep(reversed(workers), backends, from_host=True)
    for node in workers:
        if node.device == OPEN:
            node.device = _most_readable(node, backends)
    for node in graph.nodes:
        if node.device == OPEN and node.root is not None:
            node.device = node.root.device
        for operand in node.operands:
            if operand.device == OPEN:
                operand.device = node.device if operand.root is None else operand.root.device
        if node.device == OPEN:
            node.device = next(d for d in range(backends.n_gpus + 1) if supports(node, d, backends))


def copy_of(node: Node, device: int, format_name: str = "") -> Node:
    """Return a tensor of the same layout as ``node`` (or packed in another format) with memory of its own."""
    strides = None if format_name else node.strides
    copy = Node("copy", node.shape, format_name or node.format, strides=strides, name=node.name)
    copy.device = device
    copy.layer = node.layer
    return copy


def _needs_new_split(node: Node, split: Split) -> bool:
    """Whether ``node`` reads a weight of another device while the split has inputs already."""
    if split.inputs:
        for operand in node.operands:
            if operand.is_weight and operand.root is None and operand.buffer != split.device:
                return True
    return False


def cut(graph: Graph, backends: Backends) -> list[Split]:
    """Cut an assigned graph where the device changes; operands elsewhere are replaced by copies."""
    copies: dict[tuple[Node, int], list[Node]] = {}
    workers = (node for node in graph.nodes if node.op not in VIEW_OPS)
    split = Split(device=next(workers).device)
    splits = [split]
    started = False
    for node in graph.nodes:
        if node.op in VIEW_OPS:
            split.nodes.append(node)
            continue
        if node.device != split.device or (started and _needs_new_split(node, split)):
            split = Split(device=node.device)
            splits.append(split)
        started = True
        split.nodes.append(node)
        device = split.device
        for operand in node.operands:
            if _home(operand) != device:
                node.operands = tuple([_readable(each, split, copies, backends.n_copies) for each in node.operands])
                break
    return splits


def _readable(operand: Node, split: Split, copies: dict[tuple[Node, int], list[Node]], n_copies: int) -> Node:
    """Return ``operand`` if the split's device can read it, else its copy there, made on first use."""
    if _home(operand) == split.device:
        return operand
    key = (operand, split.device)
    if key not in copies:
        made = [copy_of(operand, split.device) for _ in range(n_copies)]
        if n_copies > 1:
            for copy in made:
                copy.is_input = copy.is_output = True
        copies[key] = made
        split.inputs.append((operand, made))
    return copies[key][0]


def input_copies(graph: Graph, backends: Backends) -> list[list[Node]]:
    """Return for each graph input itself and its further copies for pipeline parallelism, all kept to the end."""
    if backends.n_copies == 1:
        return []
    groups = []
    for leaf in graph.leafs:
        if leaf.is_input:
            group = [leaf, *(copy_of(leaf, leaf.device) for _ in range(backends.n_copies - 1))]
            for copy in group:
                copy.is_input = copy.is_output = True
            groups.append(group)
    return groups
