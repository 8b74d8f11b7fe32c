"""Compute buffers to the byte: the graph of the worst case, split between devices, placed in one arena each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.engines.llama_cpp.language_graph import language_graph
from planner.engines.llama_cpp.schedule import arenas

if TYPE_CHECKING:
    from planner.engines.llama_cpp.arena import Reservation
    from planner.engines.llama_cpp.graph import Node
    from planner.engines.llama_cpp.traits import GraphRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Where an arena is fullest: the operation, its layer (-1 outside), and what lies there (name, bytes), by address."""

    operation: str
    layer: int
    live: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeBuffers:
    """Bytes of each device's compute buffer (the host's last) and where each is fullest."""

    bytes_by_device: tuple[int, ...]
    peaks: tuple[Peak | None, ...]


def compute_buffers(request: GraphRequest, *, explain: bool = False) -> ComputeBuffers | None:
    """Return the compute buffers of every device, or None where the graph is not understood."""
    graph = language_graph(request)
    if graph is None:
        return None
    reservation, nodes = arenas(graph, request.backends)
    peaks = _peaks(reservation, nodes) if explain else ()
    return ComputeBuffers(bytes_by_device=tuple(reservation.arena_bytes), peaks=peaks)


def _peaks(reservation: Reservation, nodes: list[Node]) -> tuple[Peak | None, ...]:
    return tuple(_peak(reservation, nodes, arena) for arena in range(len(reservation.arena_bytes)))


def _peak(reservation: Reservation, nodes: list[Node], arena: int) -> Peak | None:
    step = reservation.peak_steps[arena]
    live = reservation.live_at(arena, step)
    if not live:
        return None
    maker = max(live, key=lambda t: reservation.born[t])
    node = nodes[maker]
    return Peak(operation=describe(node), layer=node.layer, live=tuple((describe(nodes[t]), nodes[t].n_bytes) for t in live))


def describe(node: Node) -> str:
    """Return an operation in words: what it is called, or what it does with which weight."""
    if node.name:
        return f"{node.op} {node.name}" if node.op in ("copy", "mul_mat") else node.name
    weight = next((operand.name for operand in node.operands if operand.is_weight), "")
    return f"{node.kind or node.op} {weight}".strip()


def output_buffer_bytes(n_vocab: int, n_seqs: int) -> int:
    """Return the host buffer of logits, outside the compute buffers: one f32 row per sequence (``output_reserve``)."""
    return 4 * n_vocab * n_seqs
