"""Bytes of the loaded weights per device.

Each tensor takes its bytes; on CUDA a *quantised* one whose rows are no multiple of 512 elements takes one row's
missing elements more, and every tensor is padded to the buffer's alignment (CUDA 128, host 32 bytes).
Source: ggml-cuda.cu (``ggml_backend_cuda_buffer_type_get_alloc_size``), ggml-alloc.c; exact in every table row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from planner.engines.llama_cpp.layout import HOST, Layout, place_weights
from planner.model import Language, Tensor
from planner.quantization import FORMATS, row_bytes, tensor_bytes
from planner.remembered import remembered
from planner.units import align

CUDA_ALIGNMENT = 128
HOST_ALIGNMENT = 32
CUDA_ROW_ELEMENTS = 512


@lru_cache(maxsize=4096)
def stored_bytes(format_name: str, shape: tuple[int, ...], *, on_gpu: bool) -> int:
    """Return the bytes a tensor takes in a buffer of a GPU or of the host, padding included."""
    n_bytes = tensor_bytes(format_name, shape)
    if not on_gpu:
        return align(n_bytes, HOST_ALIGNMENT)
    missing = -shape[0] % CUDA_ROW_ELEMENTS
    if missing and FORMATS[format_name].quantized:
        n_bytes += row_bytes(format_name, missing)
    return align(n_bytes, CUDA_ALIGNMENT)


@remembered
def weights_bytes(language: Language, layout: Layout) -> Mapping[int, int]:
    """Return the bytes of weights per device (``HOST`` included)."""
    totals = dict.fromkeys((*range(layout.n_gpus), HOST), 0)
    for tensor, device in place_weights(language, layout):
        totals[device] += weight_bytes(tensor, device)
    return totals


def weight_bytes(tensor: Tensor, device: int) -> int:
    """Return what one loaded tensor takes on ``device``."""
    return stored_bytes(tensor.format, tensor.shape, on_gpu=device != HOST)
