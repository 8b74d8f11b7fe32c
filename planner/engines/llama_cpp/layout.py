"""Which device holds which layer and which weight, by llama.cpp's own rule: it counts layers, not bytes.

There are ``n_slots + 1`` places: the repeating layers (stored multi-token-prediction blocks count too), then the
output. ``-ngl N`` offloads the last N of them, the output first. Source: ``load_tensors`` in llama-model.cpp and
``create_tensor`` in llama-model-loader.cpp, llama.cpp 0.5.0-dev; checked on every row of the measured tables.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache

from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.model import Language, Tensor
from planner.remembered import remembered

HOST = -1
_BLOCK = re.compile(r"blk\.(\d+)\.")
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_INPUT = ("token_embd.", "per_layer_token_embd.", "position_embd.", "token_types.")
_FIRST_LAYER = ("per_layer_model_proj.", "per_layer_proj_norm.")
_EVERY_DEVICE = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``slots[i]`` is the device of layer i, ``output`` that of the output; devices count from 0, ``HOST`` is -1."""

    n_gpus: int
    slots: tuple[int, ...]
    output: int
    overrides: tuple[tuple[re.Pattern[str], int], ...] = ()

    @property
    def all_offloaded(self) -> bool:
        """Whether every layer and the output lie on a GPU."""
        return HOST not in self.slots and self.output != HOST


def _f32(value: float) -> float:
    """Round to the 32-bit float the engine computes with."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def split_points(shares: Sequence[float]) -> list[float]:
    """Return the cumulated, normalised shares in the engine's 32-bit arithmetic; full GPUs share equally."""
    if not any(shares):
        shares = [1.0] * len(shares)
    total, sums = 0.0, []
    for share in shares:
        total = _f32(total + _f32(share))
        sums.append(total)
    return [_f32(value / total) for value in sums]


def slot_devices(n_places: int, n_gpu_layers: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return the device of each of ``n_places`` places (layers, then output) for ``-ngl`` and split ``shares``."""
    n_offloaded = min(n_gpu_layers, n_places) if n_gpu_layers >= 0 else n_places
    if not shares or n_offloaded == 0:
        return (HOST,) * n_places
    points = split_points(shares)
    first = n_places - n_offloaded
    devices = [HOST] * first
    for index in range(n_offloaded):
        position = _f32(index / n_offloaded)
        devices.append(next(device for device, point in enumerate(points) if point > position))
    return tuple(devices)


def layout_of(
    language: Language, settings: LlamaCppSettings, free_bytes: Sequence[int], names: Sequence[str] | None = None
) -> Layout:
    """Return who holds what for the GPUs with ``free_bytes`` each; without shares the free memory decides.

    ``names`` are the devices' names in the engine's words, by default CUDA0, CUDA1 and so on.

    Raises:
        UsageError: an override names no such buffer or is no regular expression.
    """
    n_gpus = len(free_bytes)
    shares = [float(n) for n in free_bytes]
    if settings.split_mode == "none" and n_gpus:
        shares = [1.0 if device == settings.main_gpu else 0.0 for device in range(n_gpus)]
    elif settings.tensor_split is not None and any(settings.tensor_split):
        shares = list(settings.tensor_split)
    buffers = {name: device for device, name in enumerate(names or [f"CUDA{n}" for n in range(n_gpus)])}
    places = slot_devices(n_slots(language) + 1, settings.n_gpu_layers, shares)
    return Layout(n_gpus=n_gpus, slots=places[:-1], output=places[-1], overrides=_overrides(settings, buffers))


def _overrides(settings: LlamaCppSettings, buffers: dict[str, int]) -> tuple[tuple[re.Pattern[str], int], ...]:
    rules = [_override(text, buffers) for text in settings.override_tensor or ()]
    if settings.cpu_moe:
        rules.append((re.compile(_EXPERTS), HOST))
    rules += [(re.compile(rf"blk\.{layer}{_EXPERTS}"), HOST) for layer in range(settings.n_cpu_moe)]
    return tuple(rules)


def _override(text: str, buffers: dict[str, int]) -> tuple[re.Pattern[str], int]:
    pattern, separator, buffer = text.rpartition("=")
    devices = {"CPU": HOST, **buffers}
    if not separator or buffer not in devices:
        raise UsageError(
            f"settings.override_tensor {text!r}: write <regex>=<buffer>, buffer one of {', '.join(devices)}"
        )
    try:
        return re.compile(pattern), devices[buffer]
    except re.error as error:
        raise UsageError(f"settings.override_tensor {text!r} is no regular expression: {error}") from None


@remembered
def n_slots(language: Language) -> int:
    """Return how many repeating layers are stored; of an architecture that is not understood, by its tensors' names."""
    if language.layers:
        return language.n_layers + language.n_mtp_layers
    return 1 + max((layer_of(tensor.name) or 0 for tensor in language.tensors), default=-1)


@lru_cache(maxsize=4096)
def layer_of(name: str) -> int | None:
    """Return the repeating layer a tensor belongs to, by its name, or None."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


@remembered
def place_weights(language: Language, layout: Layout) -> tuple[tuple[Tensor, int], ...]:
    """Return every (tensor, device) that is really loaded: each stored one, copies made at load included.

    Blocks kept for multi-token prediction are not loaded; a tied embedding is held twice when the output is on a
    GPU (some architectures read the output first and then hold it twice on the host too); rotary factors are held
    once on every device that has layers.
    """
    names = {tensor.name for tensor in language.tensors}
    return tuple(
        (tensor, device) for tensor in language.tensors for device in _devices_of(tensor.name, language, layout, names)
    )


def _devices_of(  # noqa: PLR0911 - one return per rule
    name: str, language: Language, layout: Layout, names: set[str]
) -> tuple[int, ...]:
    layer = layer_of(name)
    if layer is not None:
        if language.layers and layer >= language.n_layers:
            return ()
        return (_overridden(name, layout, layout.slots[layer]),)
    if name.startswith(_EVERY_DEVICE):
        return _rope_devices(language, layout)
    if name.startswith(_FIRST_LAYER):
        return (_overridden(name, layout, layout.slots[0]),)
    if name == "token_embd.weight" and "output.weight" not in names:
        places = (HOST, _overridden(name, layout, layout.output))
        return places if language.facts.get("tied_output_read_first") else tuple(dict.fromkeys(places))
    if name.startswith(_INPUT) or (name.startswith("token_embd_norm.") and "output_norm.weight" in names):
        return (_overridden(name, layout, HOST),)
    return (_overridden(name, layout, layout.output),)


def _rope_devices(language: Language, layout: Layout) -> tuple[int, ...]:
    slots = list(zip(layout.slots, language.layers, strict=False))
    if language.facts.get("rope_factors_in_full_layers_only"):
        slots = [(device, layer) for device, layer in slots if getattr(layer.mixer, "window_tokens", None) is None]
    return tuple(dict.fromkeys(device for device, _ in slots))


def _overridden(name: str, layout: Layout, device: int) -> int:
    return next((target for pattern, target in layout.overrides if pattern.search(name)), device)
