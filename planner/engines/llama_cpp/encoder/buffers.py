"""How much memory a vision encoder takes: at load, for its warm-up picture, and after the largest picture.

Compute memory is reserved at load for one picture chosen by the engine. A larger picture makes the arena grow on first
use, and it stays grown. Where flash attention is tried and refused, what the attempt reserved on either side stays too.
Source: ``clip_model_loader::warmup`` and ``clip_encode`` in tools/mtmd/clip.cpp, ggml-alloc.c, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from typing import Literal

from planner.engines.llama_cpp.backend import Backends, gpu_supports
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.engines.llama_cpp.encoder.patches import pixels
from planner.engines.llama_cpp.encoder.signatures import block_signatures
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Graph
from planner.engines.llama_cpp.schedule import Simulation, simulate
from planner.engines.llama_cpp.shortening import Run, find_runs, is_proven, kept_layers, lengthened
from planner.frozen import dataclass
from planner.model import Vision

FlashAttention = Literal["on", "off", "auto"]
MOST_PLANS = 512  # remembered per tower


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is encoded in one go: ``batch`` equal pictures of ``width`` x ``height`` pixels, after resizing or slicing.

    ``overview``: the small picture of the whole, which some towers treat differently from its tiles. ``laid_out``:
    columns and rows of tokens where the engine lays them out anew, by the image or its place in the prompt.
    """

    width: int
    height: int
    batch: int = 1
    overview: bool = False
    laid_out: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One graph's arenas, and what tells whether a later graph fits the same places without planning anew."""

    device_bytes: int
    host_bytes: int
    sizes: tuple[int, ...]
    flash_refused: bool

    def holds(self, other: Plan) -> bool:
        """Whether the tensors of ``other`` fit one by one where those of this plan lie."""
        return len(self.sizes) == len(other.sizes) and all(a >= b for a, b in zip(self.sizes, other.sizes, strict=True))


class Encoder:
    """A tower on a device: plans graphs, each size once."""

    def __init__(self, vision: Vision, kind: EncoderKind, *, on_gpu: bool, compute_capability: int = 890) -> None:
        """Hold what does not change between pictures; with ``on_gpu`` false everything runs on the host."""
        self.vision = vision
        self.kind = kind
        self.backends = Backends(n_gpus=1 if on_gpu else 0, compute_capability=compute_capability)
        self.tensors = {tensor.name: tensor for tensor in vision.tensors}
        self.layers = kind.layers_of(vision)
        self.runs = find_runs(block_signatures(vision, kind))
        self._plans: dict[tuple[Picture, bool], Plan] = {}

    def plan(self, picture: Picture, *, flash: bool) -> Plan:
        """Return the arenas for one picture.

        Runs of equal blocks are simulated a few times only, where that is proven to give the same bytes.
        """
        key = (picture, flash)
        if key not in self._plans:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            attempts = (self.runs, lengthened(self.runs)) if self.runs else ()
            short = next((p for runs in attempts if (p := self.planned(picture, flash=flash, runs=runs))), None)
            self._plans[key] = short or self.full_plan(picture, flash=flash)
        return self._plans[key]

    def full_plan(self, picture: Picture, *, flash: bool) -> Plan:
        """Return the arenas with every block simulated."""
        return _plan(simulate(self.graph(picture, flash=flash), self.backends), self.backends)

    def planned(self, picture: Picture, *, flash: bool, runs: list[Run]) -> Plan | None:
        """Return the arenas with ``runs`` of blocks cut short, None where that does not prove itself."""
        layers = tuple(kept_layers(len(self.layers), runs))
        marks = [mark for run in runs for mark in run.marks]
        done = simulate(self.graph(picture, flash=flash, layers=layers), self.backends, marks)
        proven = is_proven(runs, done.reservation.snapshots, done.splits, self.backends.n_copies)
        return _plan(done, self.backends) if proven else None

    def graph(self, picture: Picture, *, flash: bool, layers: tuple[int, ...] | None = None) -> Graph:
        """Return the graph for one picture, through all blocks or those with the numbers ``layers``."""
        tower = Tower(
            self.vision,
            self.tensors,
            width=picture.width,
            height=picture.height,
            patch=self.kind.patch_of(self.vision),
            merge=self.kind.graph_merge_of(self.vision),
            flash=flash,
            layers=self.layers if layers is None else layers,
            batch=picture.batch,
            overview=picture.overview,
            laid_out=picture.laid_out,
            prefix="v" if self.kind.modality == "vision" else "a",
        )
        x = pixels(tower, 3 if self.kind.modality == "vision" else 1)
        for stage in self.kind.stages:
            x = stage.run(tower, x)
        tower.graph.expand(x)
        return tower.graph


def _plan(done: Simulation, backends: Backends) -> Plan:
    attention = [node for node in done.nodes if node.op == "flash_attn"]
    return Plan(
        device_bytes=done.reservation.arena_bytes[0] if backends.n_gpus else 0,
        host_bytes=done.reservation.arena_bytes[-1],
        sizes=tuple(node.n_bytes for node in done.nodes if node.root is None and node.buffer is None),
        flash_refused=backends.n_gpus > 0 and any(not gpu_supports(node, 0, backends) for node in attention),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Compute arenas in bytes: on the tower's device (0 where that is the host) and on the host."""

    device_bytes: int
    host_bytes: int

    def plus(self, other: Compute) -> Compute:
        """Return both together."""
        return Compute(
            device_bytes=self.device_bytes + other.device_bytes,
            host_bytes=self.host_bytes + other.host_bytes,
        )


class RunningEncoder:
    """The arenas of a running engine: they grow with pictures and never shrink."""

    def __init__(self, encoder: Encoder, flash_attn: FlashAttention, warm_up: Picture) -> None:
        """Reserve for ``warm_up`` as the engine does at load."""
        self.encoder = encoder
        self.device_bytes = self.host_bytes = 0
        self.flash = flash_attn != "off"
        self._last: Picture | None = None
        self._current = self._reserve(warm_up)
        if flash_attn == "auto" and self._current.flash_refused:
            self.flash = False
            self._current = self._reserve(warm_up)

    def _reserve(self, picture: Picture) -> Plan:
        plan = self.encoder.plan(picture, flash=self.flash)
        self.device_bytes = max(self.device_bytes, plan.device_bytes)
        self.host_bytes = max(self.host_bytes, plan.host_bytes)
        return plan

    def encode(self, picture: Picture) -> None:
        """Encode a picture: where its tensors fit the places already planned, nothing is reserved."""
        if picture == self._last:
            return
        self._last = picture
        if not self._current.holds(self.encoder.plan(picture, flash=self.flash)):
            self._current = self._reserve(picture)

    @property
    def arenas(self) -> Compute:
        """The arenas as they stand."""
        return Compute(device_bytes=self.device_bytes, host_bytes=self.host_bytes)
