"""The linear layers of a language model as serving engines see them: what tensor parallelism splits and what it copies.

Shapes are ``[n_out, n_in]`` elements. Source: vLLM 0.33.0 and 0.10.2, ``model_executor/layers/linear.py`` and the model
files; SGLang 0.5.23 and LMDeploy 0.13/0.18 use the same cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, assert_never

from planner.frozen import dataclass
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    Ffn,
    GatedDeltaNet,
    Language,
    LatentAttention,
    Layer,
    Mamba,
    Mixer,
    MoeFfn,
    NoMixer,
    ShortConv,
)

Split = Literal["out", "in", "kv", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """``count`` matrices of ``[n_out, n_in]``.

    ``split``: over outputs, over inputs, over KV heads (``n_kv_heads`` of them, copied where there are more ranks than
    heads), or not at all. ``quantizable``: a checkpoint quantises it by itself. ``expert``: of a mixture.
    """

    n_out: int
    n_in: int
    split: Split
    count: int = 1
    bias: bool = False
    n_kv_heads: int = 0
    quantizable: bool = True
    expert: bool = False

    def rank_shape(self, n_ranks: int) -> tuple[int, int]:
        """Return ``(n_out, n_in)`` of one rank's part."""
        match self.split:
            case "out":
                return -(-self.n_out // n_ranks), self.n_in
            case "in":
                return self.n_out, -(-self.n_in // n_ranks)
            case "kv":
                heads = max(1, self.n_kv_heads // n_ranks)
                return self.n_out // self.n_kv_heads * heads, self.n_in
            case "none":
                return self.n_out, self.n_in
            case _:
                assert_never(self.split)

    def bias_elements(self, n_ranks: int) -> int:
        """Return the bias elements of one rank; row-parallel biases are whole on each."""
        return self.rank_shape(n_ranks)[0] * self.count if self.bias else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParts:
    """One layer's linears, and the elements every rank holds whole (norms, gates, convolutions)."""

    linears: tuple[Linear, ...]
    whole_elements: int


def layer_parts(language: Language, layer: Layer) -> LayerParts:
    """Return the parts of ``layer``."""
    linears, whole = _mixer(layer.mixer, language.n_embd)
    ffn_linears, ffn_whole = _ffn(layer.ffn, language.n_embd) if layer.ffn is not None else ((), 0)
    n_norms = (2 if layer.ffn is not None else 1) * (2 if layer.post_norms else 1)
    return LayerParts(linears=linears + ffn_linears, whole_elements=whole + ffn_whole + n_norms * language.n_embd)


def _mixer(mixer: Mixer, n_embd: int) -> tuple[tuple[Linear, ...], int]:  # noqa: PLR0911 - one return per kind
    match mixer:
        case Attention():
            return _attention(mixer, n_embd)
        case LatentAttention():
            return _latent(mixer, n_embd)
        case CrossAttention():
            return _cross(mixer, n_embd)
        case GatedDeltaNet():
            return _delta(mixer, n_embd)
        case ShortConv():
            both = (
                Linear(n_out=3 * n_embd, n_in=n_embd, split="out"),
                Linear(n_out=n_embd, n_in=n_embd, split="in"),
            )
            return both, n_embd * mixer.conv_kernel
        case Mamba():
            return _mamba(mixer, n_embd)
        case NoMixer():
            return (), 0
        case _:
            assert_never(mixer)


def _attention(a: Attention, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    n_query = a.n_heads * a.key_dim * (2 if a.gated else 1)
    linears = [Linear(n_out=n_query, n_in=n_embd, split="out", bias=a.qkv_bias)]
    if a.kv_source_layer is None:
        for width in (a.key_dim, a.value_dim) if a.value_tensor else (a.key_dim,):
            kv = Linear(n_out=a.n_kv_heads * width, n_in=n_embd, split="kv", n_kv_heads=a.n_kv_heads, bias=a.qkv_bias)
            linears.append(kv)
    linears.append(Linear(n_out=n_embd, n_in=a.n_heads * a.value_dim, split="in", bias=a.output_bias))
    if a.output_gate != "none":
        width = a.n_heads * (a.value_dim if a.output_gate == "element" else 1)
        linears.append(Linear(n_out=width, n_in=n_embd, split="out"))
    whole = (a.n_heads + a.n_kv_heads) * a.key_dim
    norms = {"none": 0, "head": 2 * a.key_dim, "heads": whole, "model": whole}[a.qk_norm]
    return tuple(linears), norms + (a.n_heads if a.sinks else 0)


def _latent(a: LatentAttention, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    n_query = a.n_heads * (a.nope_dim + a.rope_dim)
    query = (
        (
            Linear(n_out=a.q_lora_rank, n_in=n_embd, split="none"),
            Linear(n_out=n_query, n_in=a.q_lora_rank, split="out"),
        )
        if a.q_lora_rank
        else (Linear(n_out=n_query, n_in=n_embd, split="out"),)
    )
    rest = (
        Linear(n_out=a.kv_lora_rank + a.rope_dim, n_in=n_embd, split="none"),
        Linear(n_out=a.n_heads * (a.nope_dim + a.value_dim), n_in=a.kv_lora_rank, split="out"),
        Linear(n_out=n_embd, n_in=a.n_heads * a.value_dim, split="in"),
    )
    return query + rest, a.q_lora_rank + a.kv_lora_rank


def _cross(a: CrossAttention, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    n_kv = a.n_kv_heads * a.head_dim
    kv = Linear(n_out=n_kv, n_in=n_embd, split="kv", n_kv_heads=a.n_kv_heads, count=2)
    query = Linear(n_out=a.n_heads * a.head_dim, n_in=n_embd, split="out")
    return (query, kv, Linear(n_out=n_embd, n_in=a.n_heads * a.head_dim, split="in")), 2 * a.head_dim + 2


def _delta(a: GatedDeltaNet, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    n_key, n_value = a.n_key_heads * a.head_dim, a.n_value_heads * a.head_dim
    if a.decay != "head":
        return _channel_delta(a, n_embd)
    linears = (
        Linear(n_out=2 * n_key + 2 * n_value, n_in=n_embd, split="out"),
        Linear(n_out=2 * a.n_value_heads, n_in=n_embd, split="out", quantizable=False),
        Linear(n_out=n_embd, n_in=n_value, split="in"),
    )
    return linears, (2 * n_key + n_value) * a.conv_kernel + 2 * a.n_value_heads + a.head_dim


def _channel_delta(a: GatedDeltaNet, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    inner = a.n_value_heads * a.head_dim
    linears = (
        Linear(n_out=inner, n_in=n_embd, split="out", count=5),
        Linear(n_out=a.n_value_heads, n_in=n_embd, split="out", quantizable=False),
        Linear(n_out=n_embd, n_in=inner, split="in"),
    )
    return linears, 3 * inner * a.conv_kernel + inner + a.n_value_heads + a.head_dim


def _mamba(a: Mamba, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    groups = a.n_groups * a.state_dim
    if a.version == 2:
        project = Linear(n_out=2 * a.inner_dim + 2 * groups + a.dt_rank, n_in=n_embd, split="out")
        whole = (a.inner_dim + 2 * groups) * (a.conv_kernel + 1) + 3 * a.dt_rank + a.inner_dim
        return (project, Linear(n_out=n_embd, n_in=a.inner_dim, split="in")), whole
    linears = (
        Linear(n_out=2 * a.inner_dim, n_in=n_embd, split="out"),
        Linear(n_out=a.dt_rank + 2 * a.state_dim, n_in=a.inner_dim, split="in"),
        Linear(n_out=a.inner_dim, n_in=a.dt_rank, split="out", bias=True),
        Linear(n_out=n_embd, n_in=a.inner_dim, split="in"),
    )
    return linears, a.inner_dim * (a.conv_kernel + 1 + a.state_dim + 1)


def _ffn(ffn: Ffn, n_embd: int) -> tuple[tuple[Linear, ...], int]:
    if isinstance(ffn, DenseFfn):
        return _dense(ffn.n_ff, n_embd, gated=ffn.gated, bias=ffn.bias), 0
    experts = tuple(
        replace(linear, expert=True)
        for linear in _dense(ffn.n_ff_expert, n_embd, gated=ffn.gated, bias=ffn.bias, count=ffn.n_experts)
    )
    router = Linear(n_out=ffn.n_experts, n_in=n_embd, split="none", bias=ffn.bias, quantizable=False)
    shared = _dense(ffn.n_ff_shared, n_embd, gated=ffn.gated) if ffn.n_ff_shared else ()
    dense = _dense(ffn.n_ff_dense, n_embd, gated=True) if ffn.n_ff_dense else ()
    whole = ffn.n_experts * (int(ffn.selection_bias) + int(ffn.down_scale)) + (n_embd if ffn.shared_gate else 0)
    return (*experts, router, *shared, *dense), whole


def _dense(n_ff: int, n_embd: int, *, gated: bool, bias: bool = False, count: int = 1) -> tuple[Linear, ...]:
    up = Linear(n_out=n_ff, n_in=n_embd, split="out", bias=bias, count=count * (2 if gated else 1))
    return up, Linear(n_out=n_embd, n_in=n_ff, split="in", bias=bias, count=count)


def is_mixture(layer: Layer) -> bool:
    """Whether the layer's feed-forward block is a mixture of experts."""
    return isinstance(layer.ffn, MoeFfn)
