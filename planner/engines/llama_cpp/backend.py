"""What a CUDA device accepts: operations, head sizes of flash attention, scratch memory, batches worth sending to it.

Source: llama.cpp 0.5.0-dev, ggml-cuda.cu (``ggml_backend_cuda_device_supports_op``, ``..._offload_op``), fattn.cu.
Only rules that ever decide for language models and vision encoders are here; the CPU accepts everything.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.engines.llama_cpp.graph import Node
from planner.frozen import dataclass
from planner.quantization import FORMATS, row_bytes
from planner.units import align

CUDA_ALIGNMENT = 128
HOST_ALIGNMENT = 32
OFFLOAD_BATCH = 32  # smallest batch whose operation is sent to a GPU although its weight is on the host
ROW_ELEMENTS = 512

_SAME_HEAD = frozenset({40, 64, 72, 80, 96, 112, 128, 256})
_FA_CACHE_TYPES = frozenset({"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"})
_VECTOR_TYPES = frozenset({"f32", "f16", "bf16", "q4_0", "q8_0"})
_TURING, _ADA = 750, 890
ROWS_OF_256 = frozenset({"iq4_nl", "mxfp4", "nvfp4"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The devices of a run: GPUs numbered from 0, then the host, whose number is ``n_gpus``.

    ``op_offload``: products with host weights run on a GPU when the batch is large enough. ``n_copies``: 4 with
    pipeline parallelism, else 1.
    """

    n_gpus: int
    op_offload: bool = True
    n_copies: int = 1
    compute_capability: int = _ADA

    @property
    def host(self) -> int:
        """Number of the host."""
        return self.n_gpus

    @property
    def alignments(self) -> tuple[int, ...]:
        """Alignment of each device's arena, in bytes."""
        return (CUDA_ALIGNMENT,) * self.n_gpus + (HOST_ALIGNMENT,)


def offload_batch(node: Node) -> int:
    """Return the batch size by which the engine judges whether ``node`` is worth sending to a GPU."""
    if node.op == "get_rows":
        return 0
    if node.op == "mul_mat":
        return node.shape[1]
    if node.op in ("mul_mat_id", "rope"):
        return node.shape[2]
    return node.n_rows


def gpu_supports(node: Node, device: int, backends: Backends) -> bool:
    """Whether GPU ``device`` can run ``node``."""
    for operand in node.operands:
        if operand.buffer is not None and operand.root is None and operand.buffer not in (device, backends.host):
            return False
    rule = _RULES.get(node.op)
    return rule is None or rule(node, backends)


def _rows_contiguous(node: Node) -> bool:
    return node.strides[0] == FORMATS[node.format].block_bytes


def _contiguous_from(node: Node, first: int) -> bool:
    """Whether dimensions beyond ``first`` follow each other without gaps (``ggml_is_contiguous_n``)."""
    known = FORMATS[node.format]
    expected = known.block_bytes
    if node.shape[0] != known.block_elements and node.strides[0] != expected:
        return False
    expected = expected * node.shape[0] // known.block_elements
    for axis in (1, 2, 3):
        if node.shape[axis] != 1:
            if axis > first and node.strides[axis] != expected:
                return False
            expected = (expected if axis > first else node.strides[axis]) * node.shape[axis]
    return True


def _mul_mat(node: Node, _: Backends) -> bool:
    a, b = node.operands[:2]
    return _rows_contiguous(a) and _rows_contiguous(b) and not (b.format == "f16" and a.format != "f16")


def _get_rows(node: Node, _: Backends) -> bool:
    table = node.operands[0]
    return table.format not in ROWS_OF_256 or table.shape[0] % 256 == 0


def _ssm_scan(node: Node, _: Backends) -> bool:
    state, decay, groups = node.operands[0], node.operands[3], node.operands[4]
    if decay.shape[0] == 1:
        return state.shape[0] in (96, 128, 256) and state.shape[1] % 16 == 0
    return state.shape[0] == 16 and state.shape[1] == 1 and state.shape[2] % 128 == 0 and groups.shape[1] == 1


_RULES: dict[str, Callable[[Node, Backends], bool]] = {
    "unary": lambda node, _: node.operands[0].is_contiguous,
    "glu": lambda node, _: _contiguous_from(node.operands[0], 1),
    "mul_mat": _mul_mat,
    "mul_mat_id": lambda node, backends: node.kind != "exact" and _mul_mat(node, backends),
    "get_rows": _get_rows,
    "rms_norm": lambda node, _: _rows_contiguous(node.operands[0]),
    "norm": lambda node, _: _rows_contiguous(node.operands[0]),
    "rope": lambda node, _: _rows_contiguous(node.operands[0]) and _contiguous_from(node.operands[0], 2),
    "ssm_scan": _ssm_scan,
    "ssm_conv": lambda node, _: node.operands[0].shape[1] % 128 == 0,
    "repeat": lambda node, _: node.operands[0].format in ("f32", "f16"),
    "im2col": lambda node, _: all(operand.is_contiguous for operand in node.operands),
    "group_norm": lambda node, _: node.operands[0].is_contiguous,
    "flash_attn": lambda node, backends: attention_kernel(node, backends.compute_capability) != "none",
}


def _grouped_heads(node: Node) -> bool:
    """Whether the kernel may share one K head among several Q heads."""
    if len(node.operands) <= 3:  # no mask
        return False
    q, k, v, mask = node.operands[:4]
    if q.shape[2] // k.shape[2] < 2 or k.shape[1] % 256 != 0:
        return False
    return all(
        stride % 16 == 0
        for tensor in (q, k, v, mask)
        if not FORMATS[tensor.format].quantized
        for stride in tensor.strides[1:]
    )


def head_sizes_supported(key_dim: int, value_dim: int, n_grouped: int, *, may_group: bool) -> bool:
    """Whether CUDA has a flash attention kernel for these head sizes; ``n_grouped``: Q heads per K head."""
    if key_dim in _SAME_HEAD:
        return value_dim == key_dim
    if key_dim == 192:
        return value_dim == 128 and may_group and n_grouped % 8 == 0
    if key_dim == 320:
        return value_dim == 256 and may_group and n_grouped % 32 == 0
    if key_dim in (512, 576):
        return value_dim == 512 and may_group
    return False


def attention_kernel(node: Node, compute_capability: int) -> str:
    """Return ``none``, ``vector`` or ``matrix``: what runs a flash attention operation."""
    q, k, v = node.operands[:3]
    n_grouped = q.shape[2] // k.shape[2]
    if not head_sizes_supported(k.shape[0], v.shape[0], n_grouped, may_group=_grouped_heads(node)):
        return "none"
    if k.format not in _FA_CACHE_TYPES or v.format not in _FA_CACHE_TYPES:
        return "none"
    if len(node.operands) > 3 and node.operands[3].shape[2] != 1:  # one mask per head
        return "none"
    head = q.shape[0]
    may_vector = head <= 256 and head % 64 == 0 and head != 192 and k.shape[1] % 256 == 0
    return "vector" if may_vector and _prefers_vector(node, compute_capability, n_grouped) else "matrix"


def _prefers_vector(node: Node, compute_capability: int, n_grouped: int) -> bool:
    """Whether one or two queries are too few for the matrix kernels."""
    q, k, v = node.operands[:3]
    if FORMATS[k.format].quantized or FORMATS[v.format].quantized:
        return q.shape[1] <= (1 if _TURING <= compute_capability < _ADA else 2)
    if q.shape[1] != 1:
        return False
    large = n_grouped > 4 and (q.shape[0] >= 256 or k.shape[1] >= 8192)
    return (compute_capability >= _ADA and q.shape[3] == 1 and not large) or not _grouped_heads(node)


def attention_scratch_bytes(node: Node, compute_capability: int) -> int:
    """Return the bytes flash attention asks beyond its result: f16 copies of a cache that is of another type."""
    kernel = attention_kernel(node, compute_capability)
    if kernel == "none":
        return 0
    q, k, v = node.operands[:3]
    if kernel == "vector" and k.format == v.format and k.format in _VECTOR_TYPES and q.shape[0] in (64, 128, 256):
        return 0
    end = start = node.n_bytes
    if k.format != "f16":
        end = align(end, 128) + 2 * k.n_elements
    if v.format != "f16" and not _looks_into(v, k):
        end = align(end, 128) + 2 * v.n_elements
    return end - start


def _looks_into(v: Node, k: Node) -> bool:
    return v.root is not None and v.root is k.root and v.offset == k.offset


def scratch_bytes(node: Node, compute_capability: int) -> int:
    """Return the bytes a tensor asks of a CUDA arena beyond its own."""
    if node.op == "flash_attn":
        return attention_scratch_bytes(node, compute_capability)
    missing = -node.shape[0] % ROW_ELEMENTS
    if missing and FORMATS[node.format].quantized:
        return row_bytes(node.format, missing)
    return 0
