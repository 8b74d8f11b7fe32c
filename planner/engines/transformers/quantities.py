"""Numbers of elements of the tensors that the language model allocates in a prefill, by the moments' names.

B batch, S tokens of one prompt, N = B·S, h width, H heads, d head size, E experts, k of them used, T image
tokens. Source: transformers 5.23.0 modelling code, torch 2.13 operators.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.engines.transformers.prefill import Prefill
from planner.model import Attention, CrossAttention, DenseFfn, LatentAttention, Layer, MoeFfn
from planner.units import align

Quantity = Callable[[Prefill, Layer], int]


def heads_of(layer: Layer) -> tuple[int, int, int]:
    """Return query heads, KV heads and head size of a layer; zeros where it has no softmax attention."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        return mixer.n_heads, mixer.n_kv_heads, mixer.key_dim
    if isinstance(mixer, CrossAttention):
        return mixer.n_heads, mixer.n_kv_heads, mixer.head_dim
    if isinstance(mixer, LatentAttention):
        return mixer.n_heads, mixer.n_heads, mixer.nope_dim + mixer.rope_dim
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
    """Keys and values copied out to all query heads, where heads are grouped: 2·N·H·d; a single head needs no copy."""
    n_heads, n_kv_heads, _ = heads_of(layer)
    return 2 * query(p, layer) if n_heads > n_kv_heads > 1 else 0


def scores(p: Prefill, layer: Layer) -> int:
    """Attention scores of all heads: B·H·S²."""
    return p.n_rows * p.n_tokens * heads_of(layer)[0]


def score_rows(p: Prefill, layer: Layer) -> int:
    """One element per row of scores: N·H."""
    return p.n_rows * heads_of(layer)[0]


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


def scalar(_: Prefill, __: Layer) -> int:
    """One element."""
    return 1


def batch(p: Prefill, _: Layer) -> int:
    """One element per prompt: B."""
    return p.n_batch


def rope(p: Prefill, layer: Layer) -> int:
    """Cosines, or sines, of one prompt's positions: S·d over the rotated part of a head."""
    return p.n_tokens * (_rope_dim(p, layer) // p.form.rope_divisor)


def batch_rope(p: Prefill, layer: Layer) -> int:
    """Cosines, or sines, where each prompt has positions of its own: N·d over the rotated part."""
    return p.n_batch * rope(p, layer)


def rope_of_kinds(p: Prefill, _: Layer) -> int:
    """Cosines, or sines, of one prompt's positions for each kind of layer, with and without a window."""
    kinds = {getattr(other.mixer, "window_tokens", None) is None: other for other in p.language.layers}
    return sum(rope(p, layer) for layer in kinds.values())


def _rope_dim(p: Prefill, layer: Layer) -> int:
    if isinstance(layer.mixer, LatentAttention):
        return layer.mixer.rope_dim
    dim = heads_of(layer)[2]
    return dim or max((heads_of(other)[2] for other in p.language.layers), default=0)


def logits(p: Prefill, _: Layer) -> int:
    """Logits of the kept positions over the vocabulary."""
    return (p.n_rows if p.all_logits else p.n_batch) * p.language.n_vocab


def windowed_layers(p: Prefill, _: Layer) -> int:
    """Layers whose cache keeps a window, each with a counter; those that read another layer's cache have none."""
    mixers = (layer.mixer for layer in p.language.layers if isinstance(layer.mixer, Attention))
    return sum(1 for mixer in mixers if mixer.window_tokens and mixer.kv_source_layer is None)


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


LANGUAGE: tuple[Quantity, ...] = (
    embd,
    ff,
    query,
    key,
    repeated,
    scores,
    score_rows,
    mask,
    aligned_mask,
    causal,
    tokens,
    positions,
    scalar,
    batch,
    rope,
    batch_rope,
    rope_of_kinds,
    logits,
    windowed_layers,
    routed,
    routed_ff,
    routes,
    modality_routes,
    modality_routed,
    modality_embd,
    experts,
    expert_counts,
    shared_ff,
    shared_embd,
    every_embd,
    every_ff,
    images,
    token_images,
    image_tokens,
    deepstack_tokens,
    adapter_tokens,
)
