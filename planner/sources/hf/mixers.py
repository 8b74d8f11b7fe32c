"""What mixes the tokens in each layer of a configuration: attention of several kinds, linear attention, convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.model import Attention, CrossAttention, GatedDeltaNet, LatentAttention, ShortConv

if TYPE_CHECKING:
    from planner.model import Mixer
    from planner.sources.hf.words import LanguageWords, Switch, WindowWords
    from planner.sources.json_text import Fields

_FULL = frozenset({"full_attention", "attention", "global"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention", "local"})
_OTHER = frozenset({"linear_attention", "conv"})
KINDS = ("mamba", "linear_attention_config")
MAX_WIDTH = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Widths of the usual layer; ``windows`` has one entry per layer, None for one that sees everything."""

    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    windows: tuple[int | None, ...]


def layer_kinds(text: Fields, n_layers: int) -> tuple[str, ...]:
    """Return the word of ``layer_types`` for each layer; empty words where the configuration lists none.

    Raises:
        SourceError: a word that is not known, or another number of layers.
    """
    listed = text.items("layer_types")
    if not listed:
        return _listed_attention(text, n_layers)
    words = tuple(word for word in listed if isinstance(word, str))
    unknown = sorted(set(words) - _FULL - _WINDOWED - _OTHER)
    if len(words) != len(listed) or len(words) < n_layers or unknown:
        what = f"the kind {unknown[0][:40]!r}" if unknown else f"{len(listed)} entries for {n_layers} layers"
        raise SourceError(f"{text.where}: layer_types has {what}, which is not understood")
    return words[:n_layers]


def windows(text: Fields, words: WindowWords | None, n_layers: int) -> tuple[int | None, ...]:
    """Return the window of each layer in tokens, None for one that sees every earlier token."""
    everything: tuple[int | None, ...] = (None,) * n_layers
    key = words.key if words else "sliding_window"
    width = text.integer(key)
    switch = words.enabled_by if words else "use_sliding_window"
    if not width or (switch and switch in text.values and not text.flag(switch)):
        return everything
    if width >= (text.integer("max_position_embeddings", default=width + 1) or 0):
        return everything  # never shorter than what can be asked
    kinds = layer_kinds(text, n_layers)
    if any(kinds):
        return tuple(width if kind in _WINDOWED else None for kind in kinds)
    period = words.period if words else None
    if words and words.period_key:
        period = text.integer(words.period_key, default=period, at_least=1)
    if period is None:
        return (width,) * n_layers
    return tuple(width if index % period < period - 1 else None for index in range(n_layers))


def mixer_of(text: Fields, words: LanguageWords, shape: Shape, index: int, kinds: tuple[str, ...]) -> Mixer:
    """Return the kind of layer ``index``."""
    if index in text.integers("cross_attention_layers"):
        return CrossAttention(n_heads=shape.n_heads, n_kv_heads=shape.n_kv_heads, head_dim=shape.head_dim)
    if kinds[index] == "linear_attention":
        return _delta_net(text)
    if kinds[index] == "conv":
        return ShortConv(conv_kernel=text.require("conv_L_cache", at_most=MAX_WIDTH))
    if text.integer("kv_lora_rank") and text.flag("use_mla", default=True):
        return _latent(text, words, shape)
    return _attention(text, words, shape, index)


def switched(text: Fields, switch: Switch) -> bool:
    """Return a fact of the data, or what the configuration says under the key it names."""
    return text.flag(switch) if isinstance(switch, str) else switch


def _attention(text: Fields, words: LanguageWords, shape: Shape, index: int) -> Attention:
    own = words.attention
    window = shape.windows[index]
    n_kv_heads, head_dim, value_tensor = _own_widths(text, shape, windowed=window is not None)
    normed = own.qk_norm != "none" and (own.qk_norm_if is None or text.flag(own.qk_norm_if))
    return Attention(
        n_heads=shape.n_heads,
        n_kv_heads=n_kv_heads,
        key_dim=head_dim,
        value_dim=head_dim,
        window_tokens=window,
        window_kind=words.window.kind if words.window and window else "sliding",
        qkv=own.qkv,
        qkv_bias=switched(text, own.qkv_bias),
        output_bias=switched(text, own.output_bias),
        qk_norm=own.qk_norm if normed else "none",
        sinks=own.sinks,
        gated=own.gated,
        value_tensor=value_tensor,
        kv_source_layer=_kv_source(text, shape, index),
    )


def _own_widths(text: Fields, shape: Shape, *, windowed: bool) -> tuple[int, int, bool]:
    """Return KV heads, head size and whether values have their own tensor; layers that see all may differ."""
    if windowed or not any(shape.windows):
        return shape.n_kv_heads, shape.head_dim, True
    shared_values = text.flag("attention_k_eq_v")
    own_heads = text.integer("num_global_key_value_heads", at_most=MAX_WIDTH) if shared_values else None
    own_dim = text.integer("global_head_dim", default=shape.head_dim, at_most=MAX_WIDTH)
    return own_heads or shape.n_kv_heads, own_dim or shape.head_dim, not shared_values


def _kv_source(text: Fields, shape: Shape, index: int) -> int | None:
    """Return the layer whose cache this one reads: the last of its kind before the layers that share."""
    first_sharing = len(shape.windows) - (text.integer("num_kv_shared_layers", default=0) or 0)
    if index < first_sharing:
        return None
    windowed = shape.windows[index] is not None
    kin = [i for i in range(max(first_sharing, 0)) if (shape.windows[i] is not None) == windowed]
    if not kin:
        raise SourceError(f"{text.where}: num_kv_shared_layers leaves no layer to share with")
    return kin[-1]


def _latent(text: Fields, words: LanguageWords, shape: Shape) -> LatentAttention:
    return LatentAttention(
        n_heads=shape.n_heads,
        kv_lora_rank=text.require("kv_lora_rank", at_least=1, at_most=MAX_WIDTH),
        q_lora_rank=text.integer("q_lora_rank", default=0, at_most=MAX_WIDTH) or 0,
        nope_dim=text.require("qk_nope_head_dim", at_most=MAX_WIDTH),
        rope_dim=text.require("qk_rope_head_dim", at_most=MAX_WIDTH),
        value_dim=text.require("v_head_dim", at_most=MAX_WIDTH),
        absorbed=words.mla_absorbed,
    )


def _delta_net(text: Fields) -> GatedDeltaNet:
    return GatedDeltaNet(
        n_key_heads=text.require("linear_num_key_heads", at_least=1, at_most=MAX_WIDTH),
        n_value_heads=text.require("linear_num_value_heads", at_least=1, at_most=MAX_WIDTH),
        head_dim=text.require("linear_key_head_dim", at_least=1, at_most=MAX_WIDTH),
        conv_kernel=text.require("linear_conv_kernel_dim", at_least=1, at_most=MAX_WIDTH),
    )


def _listed_attention(text: Fields, n_layers: int) -> tuple[str, ...]:
    """Return the kinds where only the attention layers are listed (``full_attn_idxs``, ``full_attention_interval``)."""
    listed = text.integers("full_attn_idxs")
    if listed:
        return tuple("full_attention" if index in listed else "conv" for index in range(n_layers))
    interval = text.integer("full_attention_interval", at_least=1) if "linear_num_key_heads" in text else None
    if interval:
        return tuple("linear_attention" if (index + 1) % interval else "full_attention" for index in range(n_layers))
    return ("",) * n_layers
