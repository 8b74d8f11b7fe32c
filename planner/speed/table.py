"""The factors of the speed model, as ``profiles/engines/speed.yaml`` gives them, and how a device finds its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from planner.frozen import dataclass

if TYPE_CHECKING:
    from planner.budget import Basis
    from planner.machine import Gpu, Host

# NVLink or peer to peer over PCI Express; staged through host memory
Link = Literal["direct", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """Devices that behave alike: the shares of their printed rates that an engine reaches, and fixed costs.

    Shares are of memory bandwidth (``bandwidth_share``), of the rate of matrix units in prompt processing and in vision
    towers, for 16-bit and for quantised weights (``matrix_share``, ``quantized_matrix_share``), and of the FP32 rate in
    turning weights in super-blocks back into numbers when decoding (``dequantize_share``, None where that costs
    nothing). ``quantized_matrix_gain`` is what an architecture's quantised products reach of those of its class.
    Spreads are the factors from the expected value to either end of the range.
    """

    name: str
    backends: tuple[str, ...]
    architectures: tuple[str, ...]  # none: every one of these backends
    bandwidth_share: float
    dequantize_share: float | None
    layer_s: float
    matrix_share: float
    quantized_matrix_share: float
    quantized_matrix_gain: float
    vector_attention: bool  # flash attention in a tower runs on vector units, at the FP32 rate
    matrix_per_fp32: float | None  # rate of matrix units with FP16 accumulation, in multiples of FP32
    rank_link: Link  # how ranks of tensor parallelism reach each other where nothing is known about the board
    decode_spread: float
    prefill_spread: float
    encode_spread: float
    basis: Basis
    source: str

    def matrix_share_of(self, *, quantized: bool) -> float:
        """Return the share of the matrix rate that products with such weights reach."""
        return self.quantized_matrix_share * self.quantized_matrix_gain if quantized else self.matrix_share


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFactors:
    """What sets an engine apart from llama.cpp, whose factors the device classes hold.

    ``layer_s`` replaces the class's fixed cost per layer; ``overlapped``: it hides behind the device's work (or the
    work behind it) instead of adding to it. ``kv_traffic`` is how often the cache moves per token. In vision
    towers: ``framework``, whether a framework's kernels run them, which take all images in one call, keep activations
    in 16 bits, skip what lies outside of a window, and reach the same share of the printed 16-bit rate with flash
    attention as with weights; ``first_image_s``, what a process's first image costs on top; ``position_tables``, the
    projectors for which a table of positions is filled on the CPU for every image.
    """

    name: str
    engines: tuple[str, ...]
    layer_s: float | None
    overlapped: bool
    kv_traffic: float
    kv_repeated: bool  # keys and values are copied out to every query head
    framework: bool
    first_image_s: float
    position_tables: tuple[str, ...]
    encode_spread: float  # least spread of that stage
    spread: float
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What no device class decides."""

    activation_passes: (
        float  # times that a layer's activations cross memory, of a prompt's tokens or an image's patches
    )
    attention_factor: float  # of the rate of products with weights that a tower's flash attention reaches
    framework_share: float  # of the printed 16-bit rate that a framework reaches in a tower
    score_passes: float  # times that attention scores cross memory where they are kept
    table_entries_per_s: float  # numbers of a table of positions that one core fills
    pipeline_gain: float  # share of ideal pipelining that several devices reach on one prompt
    expert_layer_factor: float  # fixed cost of a layer with experts, in those of a plain one
    expert_matrix_factor: float  # of the matrix share that layers with experts reach in prompt processing
    expert_spread: float  # least spread of that
    hop_s: float  # handing a token's activations to the next device
    link_share: float  # of the printed rate of PCI Express
    all_reduce_s: dict[str, float]  # by link: direct (NVLink or peer to peer), host
    assumed_gpu_bandwidth: int
    assumed_host_bandwidth: int
    assumed_flops: int
    host_flops_per_core: int
    unknown_spread: float
    disk_bytes_per_s: tuple[int, int, int]
    link_bytes_per_s_per_lane: dict[int, int]
    pixels_per_s: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedTable:
    """All factors."""

    classes: tuple[DeviceClass, ...]
    host: DeviceClass
    engines: tuple[EngineFactors, ...]
    constants: Constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as the model sees it: its class and its printed rates, assumed where unknown."""

    kind: DeviceClass
    bandwidth: int  # bytes per second
    fp32_flops: float
    fp16_flops: float  # with FP32 accumulation where there are matrix units
    matrix_flops: float
    assumed: bool

    @property
    def basis(self) -> Basis:
        """How its rates are known."""
        return "assumed" if self.assumed else self.kind.basis


def gpu_device(gpu: Gpu, table: SpeedTable) -> Device:
    """Return ``gpu`` with its class; a GPU whose rates nobody knows gets assumed ones and is marked."""
    kind = _class_of(gpu, table)
    bandwidth, fp32 = gpu.bandwidth_bytes_per_s, gpu.fp32_flops
    known_fp32 = float(fp32 or table.constants.assumed_flops)
    by_fp32 = known_fp32 * kind.matrix_per_fp32 if kind.matrix_per_fp32 else 0.0
    return Device(
        kind=kind,
        bandwidth=bandwidth or table.constants.assumed_gpu_bandwidth,
        fp32_flops=known_fp32,
        fp16_flops=max(float(gpu.fp16_flops or 0), known_fp32),
        matrix_flops=max(float(gpu.fp16_flops or 0), by_fp32, known_fp32),
        assumed=bandwidth is None or fp32 is None,
    )


def host_device(host: Host, table: SpeedTable) -> Device:
    """Return the host as a device: its bandwidth as probed or assumed, its rate by cores."""
    flops = float(host.n_cores * table.constants.host_flops_per_core)
    return Device(
        kind=table.host,
        bandwidth=host.bandwidth_bytes_per_s or table.constants.assumed_host_bandwidth,
        fp32_flops=flops,
        fp16_flops=flops,
        matrix_flops=flops,
        assumed=host.bandwidth_bytes_per_s is None,
    )


def spread_of(device: Device, spread: float, table: SpeedTable) -> float:
    """Return the spread of a stage on ``device``: wider where its rates are assumed."""
    return max(spread, table.constants.unknown_spread) if device.assumed else spread


def engine_factors(engine: str, table: SpeedTable) -> EngineFactors:
    """Return the factors of ``engine``; of the last row where it has none."""
    return next((row for row in table.engines if engine in row.engines), table.engines[-1])


def _class_of(gpu: Gpu, table: SpeedTable) -> DeviceClass:
    same = [kind for kind in table.classes if gpu.backend in kind.backends]
    exact = [kind for kind in same if gpu.architecture in kind.architectures]
    general = [kind for kind in same if not kind.architectures]
    return next(iter((*exact, *general, *same, *table.classes)))
