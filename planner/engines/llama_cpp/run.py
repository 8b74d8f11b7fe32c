"""One question to llama.cpp, resolved: which device holds what, with which cache, and what the engine refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.engines.llama_cpp.backend import Backends
from planner.engines.llama_cpp.compute import settled_flash_attn
from planner.engines.llama_cpp.flash_attention import flash_attn_used
from planner.engines.llama_cpp.kv_cache import CacheSettings, window_cells
from planner.engines.llama_cpp.layout import HOST, Layout, layout_of, place_weights
from planner.engines.llama_cpp.settings import LlamaCppSettings, Resolved, check_settings, resolve
from planner.engines.llama_cpp.traits import GraphRequest, GraphTraits
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Attention, Language, Model
from planner.remembered import remembered
from planner.workload import Workload

_PREFIXES = {"cuda": "CUDA", "rocm": "ROCm", "metal": "MTL", "vulkan": "Vulkan", "sycl": "SYCL", "cpu": "CPU"}
DEFAULT_CAPABILITY = 890


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything the terms of the budget depend on. ``flash_attn`` is what the engine settles on."""

    model: Model
    settings: LlamaCppSettings
    resolved: Resolved
    layout: Layout
    machine: Machine
    flash_attn: bool

    @property
    def language(self) -> Language:
        """The language model."""
        return self.model.language

    @property
    def cache(self) -> CacheSettings:
        """What the KV cache depends on."""
        return CacheSettings(
            resolved=self.resolved,
            cache_type_k=self.settings.cache_type_k,
            cache_type_v=self.settings.cache_type_v,
            flash_attn=self.settings.flash_attn != "off",  # `auto` lays the cache out before it settles
            offload=not self.settings.no_kv_offload,
            swa_full=self.settings.swa_full,
        )

    @property
    def pipelined(self) -> bool:
        """Whether the engine keeps four copies of every split input (llama-context.cpp)."""
        settings, gpus = self.settings, self.machine.gpus
        overridden = bool(settings.override_tensor or settings.n_cpu_moe or settings.cpu_moe)
        return (
            self.layout.n_gpus > 1
            and settings.split_mode == "layer"
            and self.layout.all_offloaded
            and not settings.no_kv_offload
            and not overridden
            and all(gpu.async_copies for gpu in gpus)
        )


def device_names(gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Return the engine's names of the GPUs: CUDA0, CUDA1, ROCm0 and so on, counted per back end."""
    seen: dict[str, int] = {}
    names = []
    for gpu in gpus:
        prefix = _PREFIXES[gpu.backend]
        names.append(f"{prefix}{seen.get(prefix, 0)}")
        seen[prefix] = seen.get(prefix, 0) + 1
    return tuple(names)


def resolve_run(model: Model, workload: Workload, machine: Machine, settings: LlamaCppSettings) -> Run:
    """Return the run that ``settings`` lead to.

    Raises:
        UsageError: a setting the command line would refuse.
    """
    check_settings(settings, len(machine.gpus))
    free_bytes = [gpu.free_bytes for gpu in machine.gpus]
    layout = layout_of(model.language, settings, free_bytes, device_names(machine.gpus))
    return Run(
        model=model,
        settings=settings,
        resolved=resolve(settings, workload, model.language.n_context_train),
        layout=layout,
        machine=machine,
        flash_attn=flash_attn_used(model.language, settings, layout),
    )


def graph_request(run: Run, traits: GraphTraits, *, pinned: bool = True, settle: bool = True) -> GraphRequest:
    """Return the request for compute buffers; the host is the device after the last GPU.

    ``settle``: find out what ``--flash-attn auto`` comes to where layers meet others on another device; False is for
    bounds of runs that have them all on one kind of device.
    """
    layout, resolved, host = run.layout, run.resolved, run.layout.n_gpus
    layers = tuple(_number(device, layout) for device in layout.slots)
    request = GraphRequest(
        language=run.language,
        traits=traits,
        backends=Backends(
            n_gpus=host,
            op_offload=not run.settings.no_op_offload,
            n_copies=4 if run.pipelined else 1,
            compute_capability=capability_of(run.machine.gpus),
        ),
        weights=_devices_by_weight(run.language, layout),
        layer_devices=layers,
        cache_devices=(host,) * len(layers) if run.settings.no_kv_offload else layers,
        output_device=_number(layout.output, layout),
        n_tokens=resolved.n_ubatch,
        n_outputs=resolved.n_ubatch if traits.output_rows == "all" else min(resolved.n_ubatch, resolved.n_outputs),
        n_seqs=resolved.n_seqs,
        n_streams=resolved.n_streams,
        n_cells=resolved.n_ctx_seq,
        n_window_cells=_window(run),
        n_context=resolved.n_ctx_seq,
        flash_attn=run.flash_attn,
        values_transposed=run.settings.flash_attn == "off",
        cache_type_k=run.settings.cache_type_k,
        cache_type_v=run.settings.cache_type_v,
        kv_offload=not run.settings.no_kv_offload,
        pinned=pinned,
    )
    if run.settings.flash_attn != "auto" or not settle:
        return request
    return replace(request, flash_attn=settled_flash_attn(request))


def _number(device: int, layout: Layout) -> int:
    return layout.n_gpus if device == HOST else device


@remembered
def _devices_by_weight(language: Language, layout: Layout) -> Mapping[str, int]:
    """Return the device of each weight by name; of one that is held twice, the first."""
    devices: dict[str, int] = {}
    for tensor, device in place_weights(language, layout):
        devices.setdefault(tensor.name, _number(device, layout))
    return devices


def capability_of(gpus: tuple[Gpu, ...]) -> int:
    """Return the lowest compute capability of the GPUs, times 100; unknown ones count as 8.9."""
    known = [gpu.compute_capability for gpu in gpus if gpu.compute_capability]
    return min((100 * major + 10 * minor for major, minor in known), default=DEFAULT_CAPABILITY)


def _window(run: Run) -> int:
    windows = {
        layer.mixer.window_tokens
        for layer in run.language.layers
        if isinstance(layer.mixer, Attention) and layer.mixer.window_tokens is not None
    }
    return max((window_cells(tokens, run.resolved, swa_full=run.settings.swa_full) for tokens in windows), default=0)
