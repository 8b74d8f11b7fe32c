"""The feed-forward block of each layer of a configuration: dense, or a mixture of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from planner.errors import SourceError
from planner.model import DenseFfn, MoeFfn
from planner.sources.hf.mixers import MAX_WIDTH, switched

if TYPE_CHECKING:
    from planner.model import Ffn
    from planner.sources.hf.words import LanguageWords
    from planner.sources.json_text import Fields

_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_USED = ("num_experts_per_tok", "top_k_experts", "moe_k", "moe_topk", "experts_per_token")


def ffn_of(text: Fields, words: LanguageWords, index: int, n_layers: int) -> Ffn:
    """Return the feed-forward block of layer ``index``."""
    n_experts = text.integer(*_EXPERTS, default=0, at_most=1 << 16) or 0
    if n_experts and text.flag("enable_moe_block", default=True) and _routed(text, index):
        return _experts(text, words, n_experts)
    return _dense(text, words, index, n_layers)


def _routed(text: Fields, index: int) -> bool:
    """Return whether layer ``index`` has experts: the first ones may not, or only every n-th does."""
    if index < (text.integer("first_k_dense_replace", "moe_layer_start_index", default=0) or 0):
        return False
    if index in text.integers("mlp_only_layers"):
        return False
    listed = text.integers("moe_layers")
    step = text.integer("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", "moe_layer_freq")
    return index in listed if listed else (index + 1) % max(step or 1, 1) == 0


def _dense(text: Fields, words: LanguageWords, index: int, n_layers: int) -> DenseFfn:
    n_ff = _adjusted(text, _width(text, words, index)) // words.ffn.divide
    first_sharing = n_layers - (text.integer("num_kv_shared_layers", default=0) or 0)
    if text.flag("use_double_wide_mlp") and index >= first_sharing:
        n_ff *= 2
    return DenseFfn(n_ff=n_ff, gated=words.ffn.gated, fused=words.ffn.fused, bias=text.flag("mlp_bias"))


def _width(text: Fields, words: LanguageWords, index: int) -> int:
    """Return the width that the configuration states for layer ``index``, or for all."""
    if not isinstance(text.values.get(words.ffn.key), list):
        return text.require("intermediate_size_mlp", "block_ff_dim", words.ffn.key, at_least=1, at_most=MAX_WIDTH)
    listed = text.integers(words.ffn.key)
    if index >= len(listed) or not 0 < listed[index] <= MAX_WIDTH:
        raise SourceError(f"{text.where}: {words.ffn.key} states no width for layer {index}")
    return listed[index]


def _adjusted(text: Fields, n_ff: int) -> int:
    """Return the width as used where the configuration asks for two thirds of it, rounded up."""
    if not text.flag("block_auto_adjust_ff_dim"):
        return n_ff
    n_ff = int(2 * n_ff / 3)
    n_ff = int((text.number("block_ffn_dim_multiplier") or 1.0) * n_ff)
    multiple = text.integer("block_multiple_of", default=1, at_least=1) or 1
    return -(-n_ff // multiple) * multiple


def _experts(text: Fields, words: LanguageWords, n_experts: int) -> MoeFfn:
    own = words.experts
    n_ff = text.require(own.ff_key, at_least=1, at_most=MAX_WIDTH)
    n_used = text.require(*_USED, at_least=1)
    if n_used > n_experts:
        raise SourceError(f"{text.where}: {n_used} experts are used of {n_experts}")
    beside = text.require(words.ffn.key, at_least=1, at_most=MAX_WIDTH) if own.dense_beside else 0
    biased = text.text("topk_method") == "noaux_tc" if own.selection_bias is None else own.selection_bias
    return MoeFfn(
        n_experts=n_experts,
        n_experts_used=n_used,
        n_ff_expert=n_ff,
        n_ff_shared=_shared(text, words, n_ff),
        shared_gate=own.shared_gate,
        n_ff_dense=beside,
        router=own.router or _router(text),
        selection_bias=biased,
        normalise_weights=switched(text, own.normalise),
        weights_scale=float(text.number("routed_scaling_factor") or 0.0),
        fused=own.fused,
        bias=own.bias,
        down_scale=own.down_scale,
    )


def _shared(text: Fields, words: LanguageWords, n_ff: int) -> int:
    """Return the width of the shared expert: its own, or so many times a routed one's."""
    n_shared = text.integer("n_shared_experts", "moe_num_shared_experts", default=words.experts.n_shared or 0)
    width = text.integer("shared_expert_intermediate_size", default=(n_shared or 0) * n_ff, at_most=MAX_WIDTH)
    return width or 0


def _router(text: Fields) -> Literal["softmax", "sigmoid"]:
    return "sigmoid" if text.text("scoring_func") == "sigmoid" else "softmax"
