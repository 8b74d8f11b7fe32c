"""What must fit beside SGLang's static share: a prefill chunk, logits, graphs, the request table, an image's encoding.

Source: SGLang 0.5.23, ``srt/model_executor``, ``srt/mem_cache``.
"""

from __future__ import annotations

from planner.budget import ImageTokens
from planner.engines.rank_weights import stage_layers
from planner.engines.sglang.settings import SglangSettings, chunk_and_batch
from planner.engines.span import Span, fixed
from planner.engines.vllm.kv_cache import layer_caches
from planner.machine import Gpu
from planner.model import DenseFfn, Language, Model, MoeFfn
from planner.units import MIB
from planner.workload import Workload

STATES_SHARE = 0.9 / 1.9  # of the pool, where layers keep recurrent states (mamba_full_memory_ratio)
STATES_PER_REQUEST = 3  # with the radix cache


def most_requests(model: Model, workload: Workload, settings: SglangSettings, stage: int, pool_bytes: int) -> int:
    """Return how many requests the engine has a row for: 2048 to 4096, or a third of the recurrent states that fit."""
    n_requests = min(4096, max(2048, workload.sequences))
    first, last = stage_layers(model.language.n_layers, settings.pp_size)[stage]
    caches = layer_caches(model.language.layers[first:last], "auto", settings.tp_size, hybrid=True)
    state_bytes = sum(cache.state_bytes for cache in caches)
    if not state_bytes:
        return n_requests
    return max(1, min(n_requests, (int(pool_bytes * STATES_SHARE) // state_bytes - 1) // STATES_PER_REQUEST))


def slack(  # noqa: PLR0913 - what lies beside the static share
    model: Model,
    workload: Workload,
    images: tuple[ImageTokens, ...],
    gpu: Gpu,
    settings: SglangSettings,
    *,
    n_requests: int,
) -> Span:
    """Return what must fit beside the static share: a prefill chunk, graphs, the request table, an image's encoding."""
    chunk, batch = chunk_and_batch(settings, gpu.total_bytes)
    one = chunk * (_widest_ffn(model.language, settings.tp_size) + 3 * model.language.n_embd) * 2
    logits = batch * model.language.n_vocab * 4
    table = n_requests * ((settings.context_length or workload.context_tokens) + 4) * 4
    graphs = fixed(0) if settings.disable_cuda_graph else Span(low=50 * MIB, expected=2 * batch * MIB, high=1536 * MIB)
    text = Span(low=one // 2 + logits, expected=one + logits + table, high=2 * one + 2 * logits + table)
    return text + graphs + _encoding(model, images)


def _encoding(model: Model, images: tuple[ImageTokens, ...]) -> Span:
    vision = model.vision
    if vision is None or not images:
        return fixed(0)
    patches = max(sum(image.encoder_sequences) or image.tokens for image in images)
    inside = patches * (max(10 * vision.n_embd, 2 * vision.n_embd + 3 * vision.n_ff) * 2 + 9 * vision.patch_size**2)
    return Span(low=inside, expected=2 * inside, high=int(4.5 * inside))


def _widest_ffn(language: Language, n_ranks: int) -> int:
    widths = [0]
    for ffn in {layer.ffn for layer in language.layers}:
        if isinstance(ffn, DenseFfn):
            widths.append(3 * ffn.n_ff // n_ranks)
        elif isinstance(ffn, MoeFfn):
            widths.append(
                (2 * ffn.n_experts_used * ffn.n_ff_expert + 3 * (ffn.n_ff_shared + ffn.n_ff_dense)) // n_ranks
            )
    return max(widths)
