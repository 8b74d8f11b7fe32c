"""Bytes of a linear layer in the formats that serving engines load: 16 bit, FP8, AWQ, GPTQ, NVFP4, MXFP4, NF4.

``n_out x n_in`` elements, group size 128 unless said. Source: vLLM 0.33.0, ``quantization/{fp8,auto_awq,auto_gptq,
modelopt,mxfp4}.py``; NF4 with double quantisation is a constant fitted to two published loads (-0.4 %).
"""

from __future__ import annotations

from collections.abc import Callable

from planner.errors import UsageError
from planner.model import Model

GROUP = 128


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _plain(n_bytes: int) -> Callable[[int, int], int]:
    return lambda n_out, n_in: n_out * n_in * n_bytes


def _fp8(n_out: int, n_in: int) -> int:
    return n_out * n_in + 2 * n_out


def _fp8_block(n_out: int, n_in: int) -> int:
    return n_out * n_in + 4 * _ceil(n_out, GROUP) * _ceil(n_in, GROUP)


def _int8(n_out: int, n_in: int) -> int:
    return n_out * n_in + 2 * n_out


def _awq(n_out: int, n_in: int) -> int:
    n_groups = n_out * _ceil(n_in, GROUP)
    return n_out * n_in // 2 + 2 * n_groups + n_groups // 2


def _gptq(n_out: int, n_in: int) -> int:
    return n_out * n_in // 2 + 2 * n_out * _ceil(n_in, GROUP)


def _gptq_int8(n_out: int, n_in: int) -> int:
    return n_out * n_in + 2 * n_out * _ceil(n_in, GROUP)


def _nvfp4(n_out: int, n_in: int) -> int:
    return n_out * n_in // 2 + n_out * _ceil(n_in, 16)


def _mxfp4(n_out: int, n_in: int) -> int:
    return n_out * n_in // 2 + n_out * _ceil(n_in, 32)


def _nf4(n_out: int, n_in: int) -> int:
    elements = n_out * n_in
    return elements // 2 + elements // 64 + 4 * elements // 16384


LINEAR_BYTES: dict[str, Callable[[int, int], int]] = {
    "fp32": _plain(4),
    "bf16": _plain(2),
    "fp16": _plain(2),
    "fp8": _fp8,
    "fp8_block": _fp8_block,
    "int8": _int8,
    "awq": _awq,
    "gptq": _gptq,
    "gptq_int8": _gptq_int8,
    "w4a16": _gptq,
    "w8a8": _int8,
    "nvfp4": _nvfp4,
    "mxfp4": _mxfp4,
    "nf4": _nf4,
}
_ALIASES = {
    "f16": "fp16",
    "f32": "fp32",
    "half": "fp16",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
    "gptq_int4": "gptq",
    "awq_int4": "awq",
    "int4": "gptq",
    "compressed-tensors": "w4a16",
    "fbgemm_fp8": "fp8",
    "ptpc_fp8": "fp8",
    "bitsandbytes": "nf4",
    "modelopt_fp4": "nvfp4",
    "gptq-int4": "gptq",
    "gptq-int8": "gptq_int8",
}
UNQUANTIZED = frozenset({"fp32", "bf16", "fp16"})
GROUPED = frozenset({"awq", "gptq", "gptq_int8", "w4a16"})


def weight_format(word: str) -> str:
    """Return the format that a quantisation word means.

    Raises:
        UsageError: the word is not known.
    """
    name = word.lower()
    name = _ALIASES.get(name, name)
    if name not in LINEAR_BYTES:
        raise UsageError(f"quantization {word!r} is not known here; one of {', '.join(LINEAR_BYTES)}")
    return name


def linear_bytes(format_name: str, n_out: int, n_in: int) -> int:
    """Return the bytes of one ``[n_out, n_in]`` matrix in a format of ``LINEAR_BYTES``."""
    return LINEAR_BYTES[format_name](n_out, n_in)


_AT_LOAD = {"fp8": "fp8", "nf4": "bitsandbytes"}


def load_word(model: Model) -> str | None:
    """Return the word by which an engine quantises plain weights while it loads them; None where it cannot."""
    if model.stored is not None or model.quantization is None:
        return None
    return _AT_LOAD.get(model.quantization.lower())


def checkpoint_note(model: Model) -> tuple[str, ...]:
    """Return what to say where the plan is for a checkpoint that is packed otherwise than the one it names."""
    word = model.quantization
    if (
        model.stored is not None
        or word is None
        or word in model.file_types
        or word.lower() in UNQUANTIZED | {"f16", "f32"}
        or load_word(model)
    ):
        return ()
    return (f"planned for a checkpoint in {word}: put the name of one in place of {model.hf_id or model.name}",)
