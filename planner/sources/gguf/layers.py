"""Which kind each repeating layer of a GGUF file is: from the tensors it stores and the keys that size them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from planner.frozen import dataclass
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    GatedDeltaNet,
    Indexer,
    LatentAttention,
    Layer,
    Mamba,
    MoeFfn,
    NoMixer,
    ShortConv,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from planner.model import Ffn, Mixer
    from planner.sources.gguf.keys import Keys

Block = dict[str, tuple[int, ...]]  # tensor name after `blk.N.` → shape
Router = Literal["softmax", "sigmoid", "softmax_weight"]
MAX_EXPERTS = 1024  # of the engine (LLAMA_MAX_EXPERTS)
NO_LIMIT = 1e-6  # up to which the engine takes a limit of gate and up for none
_ROUTERS: dict[int, Router] = {1: "softmax", 2: "sigmoid", 3: "softmax_weight"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known of a file before its layers are looked at one by one."""

    keys: Keys
    rules: Mapping[str, object]  # the architecture's entry in layers.yaml
    n_embd: int
    n_stored_layers: int  # with those of multi-token prediction
    n_layers: int
    windows: tuple[int | None, ...]  # per layer

    def layer(self, index: int, block: Block) -> Layer | None:
        """Return the kind of one layer, None where its tensors are of no known kind."""
        mixer = _mixer(self, index, block)
        ffn = _ffn(self, index, block)
        if mixer is None or (isinstance(ffn, MoeFfn) and not 0 < ffn.n_experts_used <= ffn.n_experts <= MAX_EXPERTS):
            return None
        return Layer(mixer=mixer, ffn=ffn, post_norms="post_ffw_norm.weight" in block)


def window_tokens(
    keys: Keys, rules: Mapping[str, object], n_layers: int, recurrent: tuple[bool, ...]
) -> tuple[int | None, ...]:
    """Return the window of each layer, None for one that sees everything (rules of ``layers.yaml``)."""
    rule = rules.get("window")
    if not isinstance(rule, dict):
        return (None,) * n_layers
    usual = 0 if rule.get("optional") else rule.get("tokens", rule.get("default_tokens", 0))
    tokens = keys.integer("attention.sliding_window", usual)
    if tokens == 0 or rule.get("at_layers", n_layers) != n_layers:
        return (None,) * n_layers
    width = int(rule.get("tokens", tokens))
    return tuple(width if windowed else None for windowed in _windowed(keys, rule, n_layers, recurrent))


def _windowed(keys: Keys, rule: Mapping[str, int], n_layers: int, recurrent: tuple[bool, ...]) -> tuple[bool, ...]:
    pattern = keys.values.get("attention.sliding_window_pattern", rule["period"])
    if isinstance(pattern, tuple):
        return tuple(bool(flag) for flag in pattern[:n_layers]) + (False,) * (n_layers - len(pattern))
    period = keys.integer("attention.sliding_window_pattern", rule["period"])
    if period == 0:
        return tuple(not is_recurrent for is_recurrent in recurrent)
    if rule.get("full_first"):
        return tuple(index % period != 0 for index in range(n_layers))
    return tuple(index % period < period - 1 for index in range(n_layers))


def _mixer(reading: Reading, index: int, block: Block) -> Mixer | None:
    """Return the mixer that the telling tensor of a block betrays; the first that is there counts."""
    makers: tuple[tuple[str, Callable[[], Mixer]], ...] = (
        ("ssm_conv1d_q.weight", lambda: _channel_delta_net(reading.keys)),
        ("attn_kv_a_mqa.weight", lambda: _latent(reading, index, block)),
        ("cross_attn_q_proj.weight", lambda: _cross(reading.keys, reading.n_embd)),
        ("ssm_alpha.weight", lambda: _delta_net(reading.keys, joint_gates=False)),
        ("ssm_ba.weight", lambda: _delta_net(reading.keys, joint_gates=True)),
        ("shortconv.conv.weight", lambda: ShortConv(conv_kernel=reading.keys.integer("shortconv.l_cache"))),
        ("ssm_in.weight", lambda: _mamba(reading.keys, block)),
        ("attn_q.weight", lambda: _attention(reading, index, block)),
        ("attn_qkv.weight", lambda: _attention(reading, index, block)),
    )
    found = next((make() for telling, make in makers if telling in block), None)
    facts = reading.rules.get("facts")
    optional = isinstance(facts, dict) and (facts.get("single_blocks") or facts.get("optional_blocks"))
    return NoMixer() if found is None and optional else found


def _attention(reading: Reading, index: int, block: Block) -> Attention:
    keys, window = reading.keys, reading.windows[index]
    n_stored = reading.n_stored_layers
    n_heads = keys.per_layer("attention.head_count", n_stored, 0)[index]
    n_kv_heads = keys.per_layer("attention.head_count_kv", n_stored, n_heads)[index]
    key_dim, value_dim = _head_dims(reading, n_heads, windowed=window is not None)
    fused = "attn_qkv.weight" in block
    query_width = 0 if fused else block["attn_q.weight"][-1]
    return Attention(
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        window_tokens=window,
        window_kind=_window_kind(reading.rules) if window is not None else "sliding",
        qkv="fused" if fused else "split",
        qkv_bias="attn_qkv.bias" in block or "attn_q.bias" in block,
        output_bias="attn_output.bias" in block,
        qk_norm=_qk_norm(block, key_dim),
        sinks="attn_sinks.weight" in block,
        gated=query_width == 2 * n_heads * key_dim,
        output_gate=_output_gate(block, n_heads),
        rotated=bool(keys.of_layer("attention.rope_pattern", index, 1)),
        value_tensor=fused or "attn_v.weight" in block,
        kv_source_layer=_kv_source(reading, index),
    )


def _window_kind(rules: Mapping[str, object]) -> Literal["sliding", "chunked"]:
    rule = rules.get("window")
    return "chunked" if isinstance(rule, dict) and rule.get("kind") == "chunked" else "sliding"


def _head_dims(reading: Reading, n_heads: int, *, windowed: bool) -> tuple[int, int]:
    """Return the key and value width of a head; windowed layers may have their own."""
    keys, usual = reading.keys, reading.n_embd // max(n_heads, 1)
    key_dim = keys.integer("attention.key_length", usual)
    value_dim = keys.integer("attention.value_length", usual)
    if windowed:
        key_dim = keys.integer("attention.key_length_swa", key_dim)
        value_dim = keys.integer("attention.value_length_swa", value_dim)
    return key_dim, value_dim


def _qk_norm(block: Block, key_dim: int) -> Literal["none", "head", "heads", "model"]:
    shape = block.get("attn_q_norm.weight")
    if shape is None:
        return "none"
    if len(shape) > 1:
        return "heads"
    return "head" if shape == (key_dim,) else "model"


def _output_gate(block: Block, n_heads: int) -> Literal["none", "head", "element"]:
    shape = block.get("attn_gate.weight")
    if shape is None:
        return "none"
    return "head" if shape[-1] == n_heads else "element"


def _kv_source(reading: Reading, index: int) -> int | None:
    """Return the layer whose cache this one reads: the last of its kind before the sharing layers."""
    first_sharing = reading.n_stored_layers - reading.keys.integer("attention.shared_kv_layers", 0)
    first_sharing = int(str(reading.rules.get("own_caches", first_sharing)))
    if index < first_sharing:
        return None
    return first_sharing - (2 if reading.windows[index] is not None else 1)


def _latent(reading: Reading, index: int, block: Block) -> LatentAttention:
    keys, absorbed = reading.keys, "attn_k_b.weight" in block
    rope_dim = keys.integer("rope.dimension_count")
    key_dim = keys.integer("attention.key_length_mla" if absorbed else "attention.key_length")
    query = block.get("attn_q_a.weight")
    return LatentAttention(
        n_heads=keys.integer("attention.head_count"),
        kv_lora_rank=keys.integer("attention.kv_lora_rank"),
        q_lora_rank=query[-1] if query else 0,
        nope_dim=key_dim - rope_dim,
        rope_dim=rope_dim,
        value_dim=keys.integer("attention.value_length_mla" if absorbed else "attention.value_length"),
        absorbed=absorbed,
        indexer=_indexer(reading, index, block) if "indexer" in reading.rules else None,
        output_gate="attn_gate.weight" in block,
    )


def _indexer(reading: Reading, index: int, block: Block) -> Indexer:
    keys, rule, own = reading.keys, reading.rules["indexer"], "indexer.proj.weight" in block
    if isinstance(rule, dict) and keys.integer("context_length") >= rule["shared_from_context"]:
        own = index < rule["first"] or (index - rule["first"]) % rule["period"] == 0
    return Indexer(
        n_heads=keys.integer("attention.indexer.head_count"),
        head_dim=keys.integer("attention.indexer.key_length"),
        n_chosen=keys.integer("attention.indexer.top_k"),
        own=bool(keys.of_layer("attention.indexer.types", index, own)),
    )


def _cross(keys: Keys, n_embd: int) -> CrossAttention:
    n_heads = keys.integer("attention.head_count")
    return CrossAttention(
        n_heads=n_heads,
        n_kv_heads=keys.integer("attention.head_count_kv", n_heads),
        head_dim=keys.integer("attention.key_length", n_embd // max(n_heads, 1)),
    )


def _delta_net(keys: Keys, *, joint_gates: bool) -> GatedDeltaNet:
    return GatedDeltaNet(
        n_key_heads=keys.integer("ssm.group_count"),
        n_value_heads=keys.integer("ssm.time_step_rank"),
        head_dim=keys.integer("ssm.state_size"),
        conv_kernel=keys.integer("ssm.conv_kernel"),
        joint_gates=joint_gates,
    )


def _channel_delta_net(keys: Keys) -> GatedDeltaNet:
    n_heads = keys.integer("attention.head_count")
    return GatedDeltaNet(
        n_key_heads=n_heads,
        n_value_heads=n_heads,
        head_dim=keys.integer("kda.head_dim"),
        conv_kernel=keys.integer("ssm.conv_kernel"),
        decay="channel",
    )


def _mamba(keys: Keys, block: Block) -> Mamba:
    return Mamba(
        version=1 if "ssm_x.weight" in block else 2,
        inner_dim=keys.integer("ssm.inner_size"),
        state_dim=keys.integer("ssm.state_size"),
        conv_kernel=keys.integer("ssm.conv_kernel"),
        n_groups=keys.integer("ssm.group_count", 0),
        dt_rank=keys.integer("ssm.time_step_rank"),
    )


def _ffn(reading: Reading, index: int, block: Block) -> Ffn | None:
    if "ffn_down_exps.weight" in block:
        return _experts(reading, index, block)
    return _dense(reading.keys, index, block) if "ffn_down.weight" in block else None


def _dense(keys: Keys, index: int, block: Block) -> DenseFfn:
    n_ff = block["ffn_down.weight"][0]
    fused = block.get("ffn_up.weight", (0,))[-1] == 2 * n_ff
    return DenseFfn(
        n_ff=n_ff,
        gated=fused or "ffn_gate.weight" in block,
        fused=fused,
        bias="ffn_down.bias" in block,
        clamped=keys.of_layer("swiglu_clamp_shexp", index, 0.0) > NO_LIMIT,
    )


def _experts(reading: Reading, index: int, block: Block) -> MoeFfn:
    keys, down = reading.keys, block["ffn_down_exps.weight"]
    rule = reading.rules.get("experts")
    rule = rule if isinstance(rule, dict) else {}
    normalise = rule.get("normalise", False)
    return MoeFfn(
        n_experts=down[-1],
        n_experts_used=keys.integer("expert_used_count"),
        n_ff_expert=down[0],
        n_ff_shared=block.get("ffn_down_shexp.weight", (0,))[0],
        shared_gate="ffn_gate_inp_shexp.weight" in block,
        n_ff_dense=block.get("ffn_down.weight", (0,))[0],
        router=_router(keys, rule),
        selection_bias="exp_probs_b.bias" in block,
        normalise_weights=bool(keys.values.get("expert_weights_norm")) if normalise == "file" else bool(normalise),
        weights_scale=keys.real("expert_weights_scale", 0.0),
        gated="ffn_gate_exps.weight" in block or "ffn_gate_up_exps.weight" in block,
        fused="ffn_gate_up_exps.weight" in block,
        bias="ffn_down_exps.bias" in block,
        down_scale="ffn_down_exps.scale" in block,
        clamped=keys.of_layer("swiglu_clamp_exp", index, 0.0) > NO_LIMIT,
        shared_clamped=keys.of_layer("swiglu_clamp_shexp", index, 0.0) > NO_LIMIT,
    )


def _router(keys: Keys, rule: Mapping[str, object]) -> Router:
    number = keys.integer("expert_gating_func", 0) if rule.get("by_file") else 0
    default: Router = "softmax"
    for word in _ROUTERS.values():
        if rule.get("router") == word:
            default = word
    return _ROUTERS.get(number, default)
