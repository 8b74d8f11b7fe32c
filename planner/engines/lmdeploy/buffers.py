"""What LMDeploy holds beside weights and cache: engine buffers, run-time temporaries, the image encoder.

Source: LMDeploy v0.13.0 and v0.16.0, ``src/turbomind`` and ``pytorch/engine/executor/base.py``; terms marked
estimated have no log of their own.
"""

from __future__ import annotations

from planner.engines.lmdeploy.settings import LmdeploySettings, Resolved
from planner.engines.span import Span, fixed
from planner.model import Attention, DenseFfn, Language, LatentAttention, MoeFfn, Vision
from planner.units import GIB, MIB

CONTEXT = Span(low=300 * MIB, expected=500 * MIB, high=700 * MIB)  # CUDA context with torch and the engine's kernels
COMMUNICATORS = Span(low=50 * MIB, expected=300 * MIB, high=800 * MIB)  # per rank where there are several
_GEMM_BYTES = 65 * MIB


def static_buffers(language: Language, settings: LmdeploySettings, resolved: Resolved) -> Span:
    """Return TurboMind's buffers: attention partials, the batch in flight, sampling rows, rotary positions."""
    n_ranks, batch = resolved.n_ranks, resolved.max_batch_size
    n_tokens = settings.max_prefill_token_num + batch
    heads, dim = _widest_attention(language)
    partials = 4096 * (heads // n_ranks) * dim * 4
    attention = n_tokens * (heads // n_ranks) * dim * 2
    symmetric = max(n_tokens * language.n_embd * 2, batch * language.n_vocab * 2) if n_ranks > 1 else 0
    rows = batch * language.n_vocab * 4
    positions = batch * resolved.session_len * 24 if _multi_rope(language) else 0
    exact = partials + attention + symmetric + _GEMM_BYTES + positions
    return Span(low=exact + 2 * rows, expected=exact + 3 * rows + rows // 2, high=exact + 5 * rows)


def run_time_buffers(language: Language, settings: LmdeploySettings, resolved: Resolved) -> Span:
    """Return what the forward pass takes on top: the feed-forward block over a whole prefill (estimated)."""
    n_tokens = settings.max_prefill_token_num + resolved.max_batch_size
    one = n_tokens * (_widest_ffn(language, resolved.n_ranks) + 2 * language.n_embd) * 2
    return Span(low=one // 2, expected=one, high=2 * one + GIB // 2)


def pytorch_reserve(language: Language, settings: LmdeploySettings, resolved: Resolved) -> int:
    """Return what the PyTorch engine keeps free of cache for its logits: two bytes per token and vocabulary entry."""
    return (settings.max_prefill_token_num + 2 * resolved.max_batch_size) * language.n_vocab * 2


def encoder_buffers(vision: Vision, sequences: tuple[int, ...], n_images: int) -> Span:
    """Return the tower's temporaries over ``n_images`` images, each of so many patch sequences.

    Low without, high with attention scores held twice; torch keeps what it once took.
    """
    if not sequences:
        return fixed(0)
    n_patches = sum(sequences) * n_images
    width = max(10 * vision.n_embd, 2 * vision.n_embd + 3 * vision.n_ff) * 2
    inside = n_patches * (width + 9 * vision.patch_size**2)
    scores = n_images * len(sequences) * vision.n_heads * max(sequences) ** 2 * 2
    return Span(low=inside, expected=2 * inside + scores, high=4 * inside + 3 * scores)


def _widest_attention(language: Language) -> tuple[int, int]:
    found = [(m.n_heads, m.key_dim) for m in (layer.mixer for layer in language.layers) if isinstance(m, Attention)]
    latent = [
        (m.n_heads, m.nope_dim + m.rope_dim)
        for m in (layer.mixer for layer in language.layers)
        if isinstance(m, LatentAttention)
    ]
    return max(found + latent, key=lambda pair: pair[0] * pair[1], default=(1, language.n_embd))


def _widest_ffn(language: Language, n_ranks: int) -> int:
    widths = [0]
    for ffn in {layer.ffn for layer in language.layers}:
        match ffn:
            case DenseFfn():
                widths.append(3 * ffn.n_ff // n_ranks)
            case MoeFfn():
                widths.append(
                    (2 * ffn.n_experts_used * ffn.n_ff_expert + 3 * (ffn.n_ff_shared + ffn.n_ff_dense)) // n_ranks
                )
            case None:
                pass
    return max(widths)


def _multi_rope(language: Language) -> bool:
    return any("mrope" in key or key.endswith("dimension_sections") for key in language.facts)
