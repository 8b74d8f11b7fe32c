"""Compute buffers to the byte: the graph of the worst case, split between devices, placed in one arena each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from planner.engines.llama_cpp.language_graph import language_graph, reads_everything
from planner.engines.llama_cpp.remembered import Remembered, kin_of, structure_of
from planner.engines.llama_cpp.schedule import Scheduled, placed, scheduled
from planner.engines.llama_cpp.shortening import find_runs, is_proven, kept_layers, layer_signatures, lengthened
from planner.engines.llama_cpp.splits import assign
from planner.frozen import dataclass
from planner.quantization import FORMATS

if TYPE_CHECKING:
    from planner.engines.llama_cpp.arena import Reservation
    from planner.engines.llama_cpp.graph import Node
    from planner.engines.llama_cpp.shortening import Run
    from planner.engines.llama_cpp.traits import GraphRequest, GraphTraits
    from planner.model import Language


_REMEMBERED = 64
_SCHEDULES = 16  # large, and only of use to the next file types
_understood: dict[int, tuple[Language, GraphTraits, bool]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Where an arena is fullest: the operation, its layer (-1 outside), what lies there (name, bytes), by address."""

    operation: str
    layer: int
    live: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeBuffers:
    """Bytes of each device's compute buffer (the host's last) and where each is fullest."""

    bytes_by_device: tuple[int, ...]
    peaks: tuple[Peak | None, ...]


def compute_buffers(request: GraphRequest, *, explain: bool = False) -> ComputeBuffers | None:
    """Return the compute buffers of every device, or None where the graph is not understood.

    Runs of equal layers are simulated a few times only where that is proven to give the same bytes. A real allocation
    keeps the larger of the prompt's buffers and those of a single step, which may run elsewhere: host weights are used
    in place by small batches. Answers are remembered.
    """
    return _explained(request) if explain else _plain(request)


def _reserved(request: GraphRequest, *, explain: bool) -> ComputeBuffers | None:
    if not is_understood(request):
        return None
    found = _shortened(request, explain=explain)
    if found is None or not request.pinned or not _computes_on_host(request):
        return found
    step = replace(request, n_tokens=request.n_seqs, n_outputs=request.n_seqs)
    return _larger(found, _shortened(step, explain=True) if explain else _step(step))


def _computes_on_host(request: GraphRequest) -> bool:
    """Whether some weight of a layer or of the output lies on the host."""
    host = request.backends.host
    return request.output_device == host or any(
        device == host and name.startswith("blk.") for name, device in request.weights.items()
    )


def _larger(prompt: ComputeBuffers, step: ComputeBuffers | None) -> ComputeBuffers:
    """Return for each device the larger buffer of the two."""
    if step is None:
        return prompt
    sizes = tuple(zip(prompt.bytes_by_device, step.bytes_by_device, strict=True))
    peaks = tuple(
        b if step_bytes > prompt_bytes else a
        for (prompt_bytes, step_bytes), a, b in zip(sizes, prompt.peaks, step.peaks, strict=False)
    )
    return ComputeBuffers(bytes_by_device=tuple(max(pair) for pair in sizes), peaks=peaks)


def _shortened(request: GraphRequest, *, explain: bool) -> ComputeBuffers | None:
    runs = _runs(request)
    short = _few_layers(request) if runs else None
    if short is not None:
        formats = {tensor.name: tensor.format for tensor in request.language.tensors}
        found = _buffers(short.with_formats(formats), runs, explain=explain)
        if found is not None:
            return found
    for attempt in (lengthened(runs), []) if runs else ([],):
        ready = _scheduled(request, attempt)
        found = None if ready is None else _buffers(ready, attempt, explain=explain)
        if found is not None:
            return found
    return None


def _scheduled(request: GraphRequest, runs: list[Run]) -> Scheduled | None:
    """Return the graph with ``runs`` cut short, ready to be placed."""
    graph = language_graph(request, kept_layers(request.language.n_layers, runs))
    marks = [mark for run in runs for mark in run.marks]
    return None if graph is None else scheduled(graph, request.backends, marks)


def _buffers(ready: Scheduled, runs: list[Run], *, explain: bool) -> ComputeBuffers | None:
    """Return the buffers of a graph that cuts ``runs`` short, None where that does not prove itself."""
    done = placed(ready)
    if not is_proven(runs, done.reservation.snapshots, done.splits, ready.backends.n_copies):
        return None
    peaks = _peaks(done.reservation, done.nodes) if explain else ()
    return ComputeBuffers(bytes_by_device=tuple(done.reservation.arena_bytes), peaks=peaks)


_runs = Remembered(
    lambda request: find_runs(layer_signatures(request)),
    lambda request: (structure_of(request), request.backends, request.layer_devices, request.cache_devices),
)
_few_layers = Remembered(
    lambda request: _scheduled(request, _runs(request)),
    lambda request: (kin_of(request), *_runs(request)),
    size=_SCHEDULES,
)
_plain = Remembered(partial(_reserved, explain=False))
_explained = Remembered(partial(_reserved, explain=True))
_step = Remembered(partial(_shortened, explain=False))  # the same for every ubatch


def is_understood(request: GraphRequest) -> bool:
    """Whether every layer and every stored tensor of the model has its place in the graph; found out once a model."""
    key = id(request.language)
    known = _understood.get(key)
    if known is None or known[0] is not request.language or known[1] != request.traits:
        while len(_understood) >= _REMEMBERED:
            _understood.pop(next(iter(_understood)))
        kept = kept_layers(request.language.n_layers, _runs(request))  # the others are equal to one of these
        known = (request.language, request.traits, reads_everything(request, kept))
        _understood[key] = known
    return known[2]


def _peaks(reservation: Reservation, nodes: list[Node]) -> tuple[Peak | None, ...]:
    return tuple(_peak(reservation, nodes, arena) for arena in range(len(reservation.arena_bytes)))


def _peak(reservation: Reservation, nodes: list[Node], arena: int) -> Peak | None:
    step = reservation.peak_steps[arena]
    live = reservation.live_at(arena, step)
    if not live:
        return None
    maker = max(live, key=lambda t: reservation.born[t])
    node = nodes[maker]
    return Peak(
        operation=describe(node), layer=node.layer, live=tuple((describe(nodes[t]), nodes[t].n_bytes) for t in live)
    )


def describe(node: Node) -> str:
    """Return an operation in words: what it is called, or what it does with which weight."""
    if node.name:
        return f"{node.op} {node.name}" if node.op in ("copy", "mul_mat") else node.name
    weight = next((operand.name for operand in node.operands if operand.is_weight), "")
    return f"{node.kind or node.op} {weight}".strip()


def settled_flash_attn(request: GraphRequest) -> bool:
    """Return what ``--flash-attn auto`` settles on.

    The engine lists the graph of one token per sequence with flash attention and keeps it only if each such operation
    lands on its layer's device. It may not for head sizes the device refuses, and on the border between host and GPU
    layers, where the next layer's operations draw it over. A quantised V cache switches it on in any case.
    Source: llama-context.cpp (``resolve_fused_ops``), llama.cpp 0.5.0-dev.
    """
    if FORMATS[request.cache_type_v].quantized or not is_understood(request):
        return request.flash_attn
    probe = replace(
        request,
        flash_attn=True,
        values_transposed=False,
        n_tokens=request.n_seqs,
        n_outputs=request.n_seqs,
        pinned=True,
    )
    settled = _settled(probe)
    return request.flash_attn if settled is None else settled


@Remembered
def _settled(probe: GraphRequest) -> bool | None:
    graph = language_graph(probe, kept_layers(probe.language.n_layers, _runs(probe)))
    if graph is None:
        return None
    assign(graph, probe.backends)
    devices = probe.layer_devices
    return all(node.device == devices[node.layer] for node in graph.nodes if node.op == "flash_attn")


def output_buffer_bytes(n_vocab: int, n_seqs: int) -> int:
    """Return the host buffer of logits, outside the compute buffers: one f32 row per sequence (``output_reserve``)."""
    return 4 * n_vocab * n_seqs
