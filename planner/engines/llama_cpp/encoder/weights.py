"""Bytes of a projector file's tensors once loaded.

The engine loads the tensors it knows by name, each modality into a buffer of its own: what both towers ask for by the
same name is held twice. Source: ``load_tensors`` in tools/mtmd/clip.cpp, llama.cpp 0.5.0-dev; ggml-alloc.c for padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from planner.engines.llama_cpp.backend import CUDA_ALIGNMENT, HOST_ALIGNMENT, ROW_ELEMENTS
from planner.frozen import dataclass
from planner.model import Tensor, Vision
from planner.quantization import FORMATS, row_bytes, tensor_bytes
from planner.remembered import remembered
from planner.units import align

_BLOCK = re.compile(r"v\.blk\.(\d+)\.(?!\d)")  # not the staged blocks of convolutional towers
_AUDIO = ("a.", "mm.a.")
_SCALARS = (".input_max", ".input_min", ".output_max", ".output_min")  # read as numbers, not loaded
_LEFT = ("mm.embedding.weight", "mm.hard_emb_norm.weight")  # stored, never asked for
_BOTH_TOWERS = frozenset(
    {
        "v.class_embd",
        "v.patch_embd.weight",
        "v.patch_embd.weight.1",
        "v.patch_embd.bias",
        "v.norm_embd.weight",
        "v.norm_embd.bias",
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderWeights:
    """``counted_bytes``: as the engine counts them; ``loaded_bytes``: what their buffers take, padding included."""

    counted_bytes: int
    loaded_bytes: int


def is_audio(name: str) -> bool:
    """Whether a tensor belongs to an audio tower."""
    return name.startswith(_AUDIO)


def hears(vision: Vision) -> bool:
    """Whether the engine makes an audio tower of the file: it says so (or says nothing) and stores one."""
    return vision.facts.get("has_audio_encoder") is not False and any(is_audio(t.name) for t in vision.tensors)


def loaded_tensors(vision: Vision, *, audio: bool = True) -> list[Tensor]:
    """Return the tensors that are loaded, one entry per copy; ``audio``: the file's audio tower is loaded too."""
    known = [tensor for tensor in vision.tensors if _is_known(tensor.name, vision.n_layers)]
    with_audio = audio and hears(vision)
    loaded = [tensor for tensor in known if with_audio or not is_audio(tensor.name)]
    return loaded + [tensor for tensor in known if with_audio and tensor.name in _BOTH_TOWERS]


def _is_known(name: str, n_layers: int) -> bool:
    block = _BLOCK.match(name)
    return not name.endswith(_SCALARS) and name not in _LEFT and (block is None or int(block[1]) < n_layers)


@remembered
def encoder_weights(vision: Vision, *, on_gpu: bool, audio: bool = True) -> EncoderWeights:
    """Return the bytes of the loaded tensors, on a CUDA device or on the host."""
    tensors = loaded_tensors(vision, audio=audio)
    return EncoderWeights(
        counted_bytes=sum(tensor_bytes(tensor.format, tensor.shape) for tensor in tensors),
        loaded_bytes=buffer_bytes(tensors, on_gpu=on_gpu),
    )


def buffer_bytes(tensors: Iterable[Tensor], *, on_gpu: bool) -> int:
    """Return the bytes of a buffer that holds ``tensors``: CUDA completes quantised rows to 512 elements, once each."""
    alignment = CUDA_ALIGNMENT if on_gpu else HOST_ALIGNMENT
    return sum(align(_asked_bytes(tensor, on_gpu=on_gpu), alignment) for tensor in tensors)


def _asked_bytes(tensor: Tensor, *, on_gpu: bool) -> int:
    n_bytes = tensor_bytes(tensor.format, tensor.shape)
    missing = -tensor.shape[0] % ROW_ELEMENTS
    if on_gpu and missing and FORMATS[tensor.format].quantized:
        n_bytes += row_bytes(tensor.format, missing)
    return n_bytes
