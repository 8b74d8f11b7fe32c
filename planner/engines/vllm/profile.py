"""vLLM's profiling run: the peak it sees before it sizes the KV pool, as low, expected and high.

The peak is the largest of three phases that do not add up: the sampler on ``max_num_seqs`` rows, the language model on
``max_num_batched_tokens`` tokens, the encoder on its budget of items. Source: vLLM 0.10.2 to 0.33.0 ``v1/worker``,
``multimodal/encoder_budget.py``; constants marked below are fitted to logs or estimated.
"""

from __future__ import annotations

from planner.engines.largest_image import EncoderItem
from planner.engines.span import Span
from planner.engines.vllm.settings import Release, Resolved
from planner.model import DenseFfn, Language, MoeFfn, Vision

# bytes per (sequence, vocabulary entry): low, expected, high
_SORT = (37.5, 38.4, 39.5)  # to 0.16, and below eight rows; fitted: predicts eleven logs within 2 %
_TRITON = (10.0, 16.0, 24.0)  # from 0.17 no sort from eight sequences on: logits, 32-bit copy, probabilities, noise
_TRITON_V2 = (6.0, 11.0, 39.5)  # 0.33: estimated
PERSISTENT_V2 = 4.125  # output counts as 32-bit words and the prompt mask as bits
# Factors on the encoder's formula, which is one block's activations: before 0.19 some towers keep 32-bit copies for
# the rotation and the attention. Seen: 0.8 (a resampler, 0.5.4), 1.1 (tiles, 0.7.0), 1.3 (72B, 0.8.3), 1.6 and 1.9
# (7B and 32B, with the video that the engine before V1 makes up beside the image), 1.9 (3B, 0.11.0); from 0.19 0.7 to
# 0.9.
_ENCODER_OLD = (0.7, 1.5, 2.4)
_ENCODER_NEW = (0.6, 0.85, 2.0)


def sampler_span(language: Language, resolved: Resolved) -> Span:
    """Return the sampler's peak: bytes per (sequence, vocabulary entry), and the hidden states it reads.

    Does not shrink with tensor parallelism: logits are gathered.
    """
    rates = _rates(resolved.release, resolved.max_num_seqs)
    hidden = 2 * resolved.max_num_batched_tokens * language.n_embd
    rows = resolved.max_num_seqs * language.n_vocab
    kept = int(rows * PERSISTENT_V2) if resolved.release >= (0, 33) else 0
    return Span(
        low=int(rates[0] * rows) + kept,
        expected=int(rates[1] * rows) + hidden + kept,
        high=int(rates[2] * rows) + 2 * hidden + kept,
    )


def _rates(release: Release, n_rows: int) -> tuple[float, float, float]:
    if release >= (0, 33):
        return _TRITON_V2
    return _TRITON if release >= (0, 17) and n_rows >= 8 else _SORT


def text_span(language: Language, resolved: Resolved) -> Span:
    """Return the language model's peak over a batch of ``max_num_batched_tokens``: the widest block's activations."""
    widths = {_ffn_width(layer.ffn, resolved.n_tensor_ranks) for layer in language.layers if layer.ffn is not None}
    widest = max(widths, default=4 * language.n_embd)
    one = resolved.max_num_batched_tokens * 2
    return Span(
        low=one * (widest + 2 * language.n_embd),
        expected=one * (widest + 3 * language.n_embd),
        high=one * (2 * widest + 6 * language.n_embd),
    )


def _ffn_width(ffn: DenseFfn | MoeFfn, n_ranks: int) -> int:
    if isinstance(ffn, DenseFfn):
        return 3 * ffn.n_ff // n_ranks
    routed = ffn.n_experts_used * (2 * ffn.n_ff_expert // n_ranks)
    return routed + 3 * (ffn.n_ff_shared + ffn.n_ff_dense) // n_ranks


def dummy_video(image: EncoderItem, room: int, frames: tuple[int, int], release: Release) -> EncoderItem:
    """Return the video of the trial run: frames of the largest image's size, two to a step, as many as ``room`` holds.

    ``frames``: at most so many to 0.10, and from 0.11 on. One step at least.
    """
    steps = (frames[1] if release >= (0, 11) else frames[0]) // 2
    n_steps = max(1, min(steps, room // max(1, image.tokens)))
    return EncoderItem(tokens=n_steps * image.tokens, patches=n_steps * image.patches)


def encoder_items(item: EncoderItem, resolved: Resolved, limit: int) -> int:
    """Return how many of the largest items one profiling pass encodes.

    The largest item counts whole even where max_model_len is shorter (issue 27992; log of 0.22.0 with 1,024 tokens).
    Under cross-attention every sequence brings one (48 GB cards fail with 256 of them, issue 9445).
    """
    if item.crossed:
        return resolved.max_num_seqs
    tokens = max(1, item.tokens)
    budget = max(resolved.max_num_batched_tokens, tokens)
    per_request = max(1, min(limit, resolved.max_model_len // tokens))
    return max(1, min(budget // tokens, resolved.max_num_seqs * per_request))


def encoder_span(vision: Vision, language: Language, item: EncoderItem, n_items: int, release: Release) -> Span:
    """Return the tower's peak over ``n_items`` of the largest image, with pixels going in and tokens coming out."""
    pixels = 3 * _frames(vision) * vision.patch_size**2 * 3
    width = max(10 * vision.n_embd, 2 * vision.n_embd + 3 * vision.n_ff) * 2
    inside = item.patches * (pixels + width) * n_items
    outputs = n_items * item.tokens * language.n_embd * 2
    low, expected, high = (int(inside * factor) + outputs for factor in _encoder_factors(release))
    return Span(low=low, expected=expected, high=high)


def _encoder_factors(release: Release) -> tuple[float, float, float]:
    return _ENCODER_NEW if release >= (0, 19) else _ENCODER_OLD


def _frames(vision: Vision) -> int:
    found = vision.facts.get("temporal_patch_size")
    return found if isinstance(found, int) and found > 0 else 1
