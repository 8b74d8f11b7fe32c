"""What can be chosen when a model is loaded and run with transformers, under the words of its own API.

Source: transformers 5.23.0, ``PreTrainedModel.from_pretrained`` and ``BitsAndBytesConfig``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from planner.frozen import dataclass

DType = Literal["fp32", "fp16", "bf16"]
AttentionImplementation = Literal["sdpa", "eager", "flash_attention_2"]
LoadIn = Literal["int8", "nf4", "nf4_double"]

ELEMENT_BYTES: Mapping[DType, int] = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """How a model is loaded and called.

    ``logits``: ``generate`` keeps the last position, a plain ``forward`` keeps all. ``padded``: the prompts of a batch
    differ in length, so that a mask is built. ``load_in``: bitsandbytes. ``max_memory``: as for accelerate, ``"0"`` or
    ``"cpu"`` to a size like ``20GiB``. ``device_map``: ``auto`` lets accelerate fill the GPUs in order and the host
    after them, ``single`` puts all on the first GPU, ``cpu`` on the host. ``processor``: words for the image processor,
    such as ``max_pixels``.
    """

    dtype: DType = "bf16"
    attn_implementation: AttentionImplementation = "sdpa"
    logits: Literal["last", "all"] = "last"
    padded: bool = False
    load_in: LoadIn | None = None
    device_map: Literal["auto", "single", "cpu"] = "auto"
    max_memory: dict[str, str] | None = None
    processor: dict[str, int | bool | str] = field(default_factory=dict)

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of weights not quantised, of the cache and of activations."""
        return ELEMENT_BYTES[self.dtype]
