"""Numbers of elements of the tensors that a prefill allocates, by the names that the moments use.

B batch, S tokens of one prompt, N = B·S, h width, H heads, d head size, P patches of the batch, s patches of one
sequence of the tower. Source: transformers 5.23.0 modelling code, torch 2.13 operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planner.engines.transformers.prefill import Prefill
from planner.model import Attention, CrossAttention, DenseFfn, Layer, MoeFfn, Vision
from planner.units import align

Quantity = Callable[[Prefill, Layer], int]


def heads_of(layer: Layer) -> tuple[int, int, int]:
    """Return query heads, KV heads and head size of a layer; zeros where it has no softmax attention."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        return mixer.n_heads, mixer.n_kv_heads, mixer.key_dim
    if isinstance(mixer, CrossAttention):
        return mixer.n_heads, mixer.n_kv_heads, mixer.head_dim
    return 0, 0, 0


def embd(p: Prefill, _: Layer) -> int:
    """Hidden states: N·h."""
    return p.n_rows * p.language.n_embd


def ff(p: Prefill, layer: Layer) -> int:
    """Gate, up or their product in a dense block: N·I."""
    return p.n_rows * layer.ffn.n_ff if isinstance(layer.ffn, DenseFfn) else 0


def query(p: Prefill, layer: Layer) -> int:
    """Queries of all heads: N·H·d."""
    n_heads, _, dim = heads_of(layer)
    return p.n_rows * n_heads * dim


def key(p: Prefill, layer: Layer) -> int:
    """Keys, or values, of all KV heads: N·Hkv·d."""
    _, n_kv_heads, dim = heads_of(layer)
    return p.n_rows * n_kv_heads * dim


def repeated(p: Prefill, layer: Layer) -> int:
    """Keys and values copied out to all query heads, where heads are grouped: 2·N·H·d."""
    n_heads, n_kv_heads, _ = heads_of(layer)
    return 2 * query(p, layer) if n_heads > n_kv_heads else 0


def scores(p: Prefill, layer: Layer) -> int:
    """Attention scores of all heads: B·H·S²."""
    return p.n_rows * p.n_tokens * heads_of(layer)[0]


def score_rows(p: Prefill, layer: Layer) -> int:
    """One element per row of scores: N·H."""
    return p.n_rows * heads_of(layer)[0]


def layer_scores(p: Prefill, layer: Layer) -> int:
    """Scores of this layer's attention, over the text or over the tower's output."""
    return cross_scores(p, layer) if isinstance(layer.mixer, CrossAttention) else scores(p, layer)


def mask(p: Prefill, _: Layer) -> int:
    """A mask over one head: B·S²."""
    return p.n_rows * p.n_tokens


def aligned_mask(p: Prefill, _: Layer) -> int:
    """The copy of a mask whose rows are no multiple of 16 elements: B·S·⌈S/16⌉·16, else none."""
    return p.n_rows * align(p.n_tokens, 16) if p.n_tokens % 16 else 0


def causal(p: Prefill, _: Layer) -> int:
    """The triangle that the unfused path builds: S²."""
    return p.n_tokens * p.n_tokens


def tokens(p: Prefill, _: Layer) -> int:
    """One element per token: N."""
    return p.n_rows


def positions(p: Prefill, _: Layer) -> int:
    """One element per position of one prompt: S."""
    return p.n_tokens


def batch(p: Prefill, _: Layer) -> int:
    """One element per prompt: B."""
    return p.n_batch


def rope(p: Prefill, layer: Layer) -> int:
    """Cosines, or sines, of one prompt's positions: S·d over the rotated part of a head."""
    return p.n_tokens * (_rope_dim(p, layer) // p.form.rope_divisor)


def batch_rope(p: Prefill, layer: Layer) -> int:
    """Cosines, or sines, where each prompt has positions of its own: N·d over the rotated part."""
    return p.n_batch * rope(p, layer)


def _rope_dim(p: Prefill, layer: Layer) -> int:
    dim = heads_of(layer)[2]
    return dim or max((heads_of(other)[2] for other in p.language.layers), default=0)


def logits(p: Prefill, _: Layer) -> int:
    """Logits of the kept positions over the vocabulary."""
    return (p.n_rows if p.all_logits else p.n_batch) * p.language.n_vocab


def windowed_layers(p: Prefill, _: Layer) -> int:
    """Layers whose cache keeps a window, each with a counter."""
    return sum(1 for x in p.language.layers if isinstance(x.mixer, Attention) and x.mixer.window_tokens)


def routed(p: Prefill, layer: Layer) -> int:
    """Tokens copied to the experts they are sent to: N·k·h."""
    return routes(p, layer) * p.language.n_embd


def routed_ff(p: Prefill, layer: Layer) -> int:
    """An expert's gate or up for the tokens sent to it: N·k·Ie."""
    return routes(p, layer) * layer.ffn.n_ff_expert if isinstance(layer.ffn, MoeFfn) else 0


def routes(p: Prefill, layer: Layer) -> int:
    """Pairs of token and expert: N·k."""
    return p.n_rows * _used(layer)


def modality_routes(p: Prefill, layer: Layer) -> int:
    """The same where text and images have experts of their own: the larger group's pairs."""
    return p.n_batch * max(p.n_text_tokens, p.n_tokens - p.n_text_tokens) * _used(layer)


def modality_routed(p: Prefill, layer: Layer) -> int:
    """Its tokens, copied to the experts they are sent to."""
    return modality_routes(p, layer) * p.language.n_embd


def modality_embd(p: Prefill, layer: Layer) -> int:
    """Hidden states gathered by group: the text's, then also the images'."""
    text_first = p.n_text_tokens >= p.n_tokens - p.n_text_tokens
    return p.n_batch * p.n_text_tokens * p.language.n_embd if text_first else embd(p, layer)


def _used(layer: Layer) -> int:
    return layer.ffn.n_experts_used if isinstance(layer.ffn, MoeFfn) else 0


def experts(p: Prefill, layer: Layer) -> int:
    """Router scores: N·E."""
    return p.n_rows * layer.ffn.n_experts if isinstance(layer.ffn, MoeFfn) else 0


def expert_counts(_: Prefill, layer: Layer) -> int:
    """One element per expert: E."""
    return layer.ffn.n_experts if isinstance(layer.ffn, MoeFfn) else 0


def shared_ff(p: Prefill, layer: Layer) -> int:
    """Gate or up of the shared expert: N·Is."""
    return p.n_rows * layer.ffn.n_ff_shared if isinstance(layer.ffn, MoeFfn) else 0


def shared_embd(p: Prefill, layer: Layer) -> int:
    """Output of the shared expert, where there is one: N·h."""
    return embd(p, layer) if shared_ff(p, layer) else 0


def every_embd(p: Prefill, layer: Layer) -> int:
    """All tokens through all experts: N·E·h."""
    return experts(p, layer) * p.language.n_embd


def every_ff(p: Prefill, layer: Layer) -> int:
    """Gate or up of all experts for all tokens: N·E·Ie."""
    return experts(p, layer) * (layer.ffn.n_ff_expert if isinstance(layer.ffn, MoeFfn) else 0)


def cross_mask(p: Prefill, _: Layer) -> int:
    """The mask of cross-attention: N positions by the tower's output."""
    return p.n_rows * p.n_cross_tokens


def aligned_cross_mask(p: Prefill, _: Layer) -> int:
    """Its copy where the rows are no multiple of 16 elements."""
    return p.n_rows * align(p.n_cross_tokens, 16) if p.n_cross_tokens % 16 else 0


def cross_scores(p: Prefill, layer: Layer) -> int:
    """Scores of cross-attention over all heads."""
    return cross_mask(p, layer) * heads_of(layer)[0]


def cross_repeated(p: Prefill, layer: Layer) -> int:
    """Keys and values of cross-attention copied out to all query heads."""
    n_heads, _, dim = heads_of(layer)
    return 2 * p.n_batch * p.n_cross_tokens * n_heads * dim


def cross_embd(p: Prefill, _: Layer) -> int:
    """The tower's output at the language model's width."""
    return p.n_batch * p.n_cross_tokens * p.language.n_embd


def images(p: Prefill, _: Layer) -> int:
    """Images of the whole batch."""
    return p.n_batch * p.n_images


def token_images(p: Prefill, _: Layer) -> int:
    """One element per token and image: N times the images of a prompt."""
    return p.n_rows * p.n_images


def image_tokens(p: Prefill, _: Layer) -> int:
    """The images' vectors at the language model's width: T·h."""
    return p.n_batch * p.n_image_tokens * p.language.n_embd


def deepstack_tokens(p: Prefill, layer: Layer) -> int:
    """The same, once for each layer of the tower whose features join the language model on their own."""
    return image_tokens(p, layer) * p.language.n_deepstack_layers


def adapter_tokens(p: Prefill, _: Layer) -> int:
    """The images' vectors at the adapter's width."""
    return p.n_batch * p.n_image_tokens * p.form.adapter_width


def _vision(p: Prefill) -> Vision:
    if p.vision is None:  # pragma: no cover - text models have no tower moments
        raise AssertionError("a moment of the tower without a tower")
    return p.vision


def patch(p: Prefill, _: Layer) -> int:
    """One element per row of the tower: P."""
    return p.n_patches if p.vision else 0


def patch_embd(p: Prefill, _: Layer) -> int:
    """Hidden states of the tower: P·hv."""
    return p.n_patches * _vision(p).n_embd


def patch_ff(p: Prefill, _: Layer) -> int:
    """One projection of the tower's feed-forward block: P·Iv."""
    return p.n_patches * (p.language.n_embd if p.form.tower_ff == "language" else _vision(p).n_ff)


def patch_rope(p: Prefill, _: Layer) -> int:
    """Cosines, or sines, of the tower: P·dv."""
    return p.n_patches * (_vision(p).n_embd // max(1, _vision(p).n_heads))


def patch_scores(p: Prefill, _: Layer) -> int:
    """Scores of all the tower's sequences at once: Hv·Σs²."""
    return p.n_batch * sum(s * s for s in p.sequences) * _vision(p).n_heads


def patch_mask(p: Prefill, _: Layer) -> int:
    """A mask over each of the tower's sequences: Σs²."""
    return p.n_batch * sum(s * s for s in p.sequences)


def image_scores(p: Prefill, _: Layer) -> int:
    """Scores of the longest sequence, where images are taken one by one: Hv·max s²."""
    return max((s * s for s in p.sequences), default=0) * _vision(p).n_heads


def earlier_patch_embd(p: Prefill, _: Layer) -> int:
    """What the images before the last one leave behind meanwhile: (P − s)·hv."""
    last = p.sequences[-1] if p.sequences else 0
    return (p.n_patches - last) * _vision(p).n_embd


def batched_patch_embd(p: Prefill, _: Layer) -> int:
    """P·hv where more than one picture is encoded at once; a single one needs no copy to be contiguous."""
    return p.n_patches * _vision(p).n_embd if p.n_batch * len(p.sequences) > 1 else 0


def joint_mask(p: Prefill, _: Layer) -> int:
    """The mask over all patches of the batch in one sequence: P²."""
    return p.n_patches * p.n_patches


def aligned_joint_mask(p: Prefill, _: Layer) -> int:
    """Its copy where P is no multiple of 16."""
    return p.n_patches * align(p.n_patches, 16) if p.n_patches % 16 else 0


def joint_scores(p: Prefill, layer: Layer) -> int:
    """Scores of all patches of the batch in one sequence: Hv·P²."""
    return joint_mask(p, layer) * _vision(p).n_heads


def canvas_embd(p: Prefill, _: Layer) -> int:
    """Patches of the batch on the common canvas, padding included, at the tower's width."""
    vision = _vision(p)
    across, down = (side // vision.patch_size for side in p.canvas)
    return p.n_batch * p.n_images * across * down * vision.n_embd


def canvas_pixels(p: Prefill, _: Layer) -> int:
    """Pixels of the batch on the common canvas, three channels."""
    return p.n_batch * p.n_images * 3 * p.canvas[0] * p.canvas[1]


def tile_pixels(p: Prefill, layer: Layer) -> int:
    """Pixels of all square tiles, three channels."""
    return 3 * tile_area(p, layer)


def tile_area(p: Prefill, _: Layer) -> int:
    """Pixels of all square tiles, one channel."""
    return p.n_batch * len(p.sequences) * _vision(p).image_size ** 2 if p.vision else 0


def patch_pixels(p: Prefill, _: Layer) -> int:
    """Pixels as rows of patches, three channels; class tokens have none."""
    return p.n_patches * 3 * _vision(p).patch_size ** 2


def slice_tokens(p: Prefill, _: Layer) -> int:
    """Slices padded to the longest, at the language model's width: n·max s·h."""
    return p.n_batch * len(p.sequences) * max(p.sequences, default=0) * p.language.n_embd


def resampler_queries(p: Prefill, _: Layer) -> int:
    """The learned queries of one slice at the language model's width."""
    return p.n_image_tokens // max(1, len(p.sequences)) * p.language.n_embd


NAMES: tuple[Quantity, ...] = (
    embd, ff, query, key, repeated, scores, score_rows, layer_scores, mask, aligned_mask, causal, tokens, positions, batch, rope,
    batch_rope, logits, windowed_layers, routed, routed_ff, routes, modality_routes, modality_routed, modality_embd, experts, expert_counts, shared_ff, shared_embd, every_embd,
    every_ff, cross_mask, aligned_cross_mask, cross_scores, cross_repeated, cross_embd, images, token_images, image_tokens,
    deepstack_tokens, adapter_tokens, patch, patch_embd, patch_ff, patch_rope, patch_scores, patch_mask, image_scores,
    earlier_patch_embd, batched_patch_embd, joint_mask, aligned_joint_mask, joint_scores, canvas_embd, canvas_pixels,
    tile_pixels, tile_area, patch_pixels, slice_tokens,
    resampler_queries,
)  # fmt: skip
QUANTITIES: Mapping[str, Quantity] = {quantity.__name__: quantity for quantity in NAMES}
