"""A model, a machine and a workload under vLLM → bytes per device.

``R = ceil(total x gpu_memory_utilization)`` is filled: weights, what the profiling run saw outside and inside torch,
from 0.20 an estimate of the CUDA graphs, and a KV pool from the rest. Outside R stand the CUDA context (inside in 0.6.4
and in 0.8 to 0.9.0, see ``outside.py``), from 0.11 the communicators, and before 0.20 the graphs. Source: vLLM 0.5.4 to
0.20.1, ``worker/worker.py`` and ``v1/worker/{utils,gpu_worker}.py``, and 0.33.0.
"""

from __future__ import annotations

from dataclasses import replace

from planner.budget import Budget
from planner.engines.rank_weights import stage_layers
from planner.engines.vllm.devices import host, rank_device
from planner.engines.vllm.ranks import Pool, Rank, images_of, largest_item, pool_of, ranks_of
from planner.engines.vllm.rules import VllmRules
from planner.engines.vllm.rules import refusals as start_refusals
from planner.engines.vllm.settings import Resolved, VllmSettings, resolve, shown, traits_of
from planner.engines.weight_formats import checkpoint_note
from planner.machine import Gpu, Machine
from planner.model import Model
from planner.units import format_bytes
from planner.workload import Workload

NO_RULES = VllmRules()


def budget(  # noqa: PLR0913 - the engine's whole question
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: VllmSettings,
    version: str,
    rules: VllmRules = NO_RULES,
) -> Budget:
    """Return the bytes of each GPU, with what the engine would refuse at start.

    Raises:
        UsageError: an impossible setting or version.
    """
    gpus = machine.gpus
    if not gpus:
        return Budget(devices=(), refusals=("vLLM needs a GPU; this machine has none",))
    resolved = resolve(settings, workload, _poorest(gpus, settings), version, traits_of(model))
    refusals = list(start_refusals(model, settings, resolved, version, rules))
    if resolved.n_ranks > len(gpus):
        asked = f"tensor_parallel_size {resolved.n_tensor_ranks} x pipeline_parallel_size {resolved.n_pipeline_ranks}"
        return Budget(devices=(), refusals=(*refusals, f"{asked} needs {resolved.n_ranks} GPUs; there are {len(gpus)}"))
    ranks = ranks_of(model, workload, machine, settings, resolved, rules)
    pool = pool_of(model, workload, ranks, settings, resolved)
    devices = tuple(
        rank_device(rank, pool, resolved, stage_layers(model.language.n_layers, resolved.n_pipeline_ranks), settings)
        for rank in ranks
    )
    return Budget(
        devices=(*devices, host(machine, settings, ranks, resolved)),
        image_tokens=images_of(model, workload),
        settings=shown(settings, resolved),
        notes=(
            *_notes(workload, pool, resolved, settings),
            *video_note(model, settings, resolved, rules),
            *checkpoint_note(model),
        ),
        refusals=tuple(refusals),
        shortfalls=tuple(_shortfalls(workload, ranks, pool, resolved)),
    )


def video_note(model: Model, settings: VllmSettings, resolved: Resolved, rules: VllmRules) -> tuple[str, ...]:
    """Return that the trial run reserves for a video larger than any image, where it does."""
    limits = {"image": 1} | (settings.limit_mm_per_prompt or {})
    item = largest_item(model, settings, resolved, rules)
    image = largest_item(model, replace(settings, limit_mm_per_prompt=limits | {"video": 0}), resolved, rules)
    if item is None or image is None or item.tokens <= image.tokens or settings.skip_mm_profiling:
        return ()
    said = f"the trial run encodes a video of {item.tokens} tokens"
    return (f"{said}; limit_mm_per_prompt with video 0 reserves for an image of {image.tokens} instead",)


def _poorest(gpus: tuple[Gpu, ...], settings: VllmSettings) -> Gpu:
    n_ranks = max(1, settings.tensor_parallel_size * settings.pipeline_parallel_size)
    return min(gpus[:n_ranks], key=lambda gpu: gpu.total_bytes)


def _shortfalls(workload: Workload, ranks: list[Rank], pool: Pool, resolved: Resolved) -> list[str]:
    """What the start check says, judged on the low side of the pool; and the load that the pool must hold at once."""
    found = []
    for rank in ranks:
        free_after_context = rank.gpu.free_bytes - rank.outside.high
        if free_after_context < rank.share_bytes:
            asked = f"gpu_memory_utilization {resolved.gpu_memory_utilization:g} asks for"
            whole = format_bytes(rank.share_bytes + rank.outside.high)
            said = f"{asked} {format_bytes(rank.share_bytes)}, with the CUDA context {whole}"
            found.append(f"{rank.device}: {said}; {format_bytes(rank.gpu.free_bytes)} is free")
    if pool.n_blocks_low < pool.blocks_per_request:
        missing = (pool.blocks_per_request - pool.n_blocks_low) * ranks[0].layout.bytes_per_block
        found.append(
            f"the KV pool may be {format_bytes(missing)} too small for one request "
            f"of max_model_len {resolved.max_model_len}; "
            "raise gpu_memory_utilization, or lower max_model_len or max_num_seqs"
        )
    elif (
        pool.tokens_low < workload.sequences * workload.context_tokens
        and pool.n_blocks_low < workload.sequences * pool.blocks_per_request
    ):
        found.append(
            f"the KV pool holds {pool.n_blocks_low // pool.blocks_per_request} requests "
            f"of {resolved.max_model_len} tokens at once, "
            f"{workload.sequences} were asked for; the others would wait"
        )
    return found


def _notes(workload: Workload, pool: Pool, resolved: Resolved, settings: VllmSettings) -> tuple[str, ...]:
    held = f"KV pool: {pool.tokens} tokens expected, at least {pool.tokens_low}"
    notes = [f"{held}; {pool.concurrency:.2f} requests of {resolved.max_model_len} tokens at once"]
    if settings.max_model_len is None:
        notes.append(f"max_model_len is planned as {workload.context_tokens}; vLLM's own default is the model's")
    if settings.skip_mm_profiling:
        notes.append(
            "skip_mm_profiling: nothing is reserved for encoding images; leave room by a lower gpu_memory_utilization"
        )
    return tuple(notes)
