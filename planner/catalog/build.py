"""A checked profile becomes a ``Model``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.catalog.architectures import architecture_facts, expert_defaults, layer_rules
from planner.errors import SourceError
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    GatedDeltaNet,
    ImageRule,
    Indexer,
    Language,
    LatentAttention,
    Layer,
    Mamba,
    Model,
    MoeFfn,
    NoMixer,
    Parameters,
    ShortConv,
    Vision,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.catalog.profile import (
        AttentionData,
        ExpertsData,
        Fact,
        IndexerData,
        KindData,
        LanguageData,
        Profile,
        VisionData,
    )
    from planner.model import Ffn, Mixer, Number


def model_of(profile: Profile) -> Model:
    """Return the model of ``profile``, without tensors.

    Raises:
        SourceError: a kind of layer has no mixer.
    """
    counts = profile.parameters
    return Model(
        name=profile.name,
        family=profile.family,
        ollama_tag=next((name for name in profile.aliases if _is_tag(name)), None),
        language=_language(profile.name, profile.language),
        vision=None if profile.vision is None else _vision(profile.vision),
        parameters=None
        if counts is None
        else Parameters(
            total=counts.total,
            language=counts.language,
            vision=counts.vision,
            projector=counts.projector,
            linear=counts.linear,
        ),
        architecture_class=profile.architecture_class,
        file_types=profile.quantizations,
        hf_id=profile.hf_id,
        source=f"profile {profile.name}: {profile.source}",
        notes=tuple(profile.notes),
    )


def _is_tag(name: str) -> bool:
    """Whether an alias is a tag of Ollama's library that says which size it means."""
    return ":" in name and "/" not in name and not name.endswith(":latest")


def _language(name: str, data: LanguageData) -> Language:
    rules = layer_rules(data.architecture) or {}
    experts = expert_defaults(rules)
    kinds = {kind: _layer(name, own, experts, post_norms=data.post_norms) for kind, own in data.kinds.items()}
    return Language(
        architecture=data.architecture,
        n_embd=data.embd,
        n_vocab=data.vocab,
        n_context_train=data.context,
        layers=tuple(kinds[kind] for kind in data.order),
        tied_embeddings=data.tied,
        n_mtp_layers=data.mtp_layers,
        n_deepstack_layers=data.deepstack_layers,
        n_embd_per_layer=data.embd_per_layer,
        rope_factors=tuple(data.rope_factors),
        facts=_facts(data.facts) | architecture_facts(rules),
    )


def _facts(facts: Mapping[str, Fact]) -> dict[str, Number]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}


def _layer(name: str, kind: KindData, experts: Mapping[str, object], *, post_norms: bool) -> Layer:
    mixer = NoMixer() if kind.no_mixer else _mixer(kind)
    if mixer is None:
        raise SourceError(f"profile {name}: a kind of layer has no mixer")
    ffn: Ffn | None = None
    if kind.experts is not None:
        ffn = _experts(kind.experts, experts)
    elif kind.ffn is not None:
        own = kind.ffn
        ffn = DenseFfn(n_ff=own.width, gated=own.gated, fused=own.fused, bias=own.bias, clamped=own.clamped)
    return Layer(mixer=mixer, ffn=ffn, post_norms=post_norms)


def _mixer(kind: KindData) -> Mixer | None:
    if kind.attention is not None:
        return _attention(kind.attention)
    if kind.latent is not None:
        return _latent(kind)
    if kind.cross is not None:
        cross = kind.cross
        return CrossAttention(n_heads=cross.heads, n_kv_heads=cross.kv_heads, head_dim=cross.head_dim)
    return _recurrent(kind)


def _attention(data: AttentionData) -> Attention:
    return Attention(
        n_heads=data.heads,
        n_kv_heads=data.kv_heads,
        key_dim=data.key_dim or data.head_dim or 0,
        value_dim=data.value_dim or data.head_dim or 0,
        window_tokens=data.window,
        window_kind=data.window_kind,
        qkv=data.qkv,
        qkv_bias=data.qkv_bias,
        output_bias=data.output_bias,
        qk_norm=data.qk_norm,
        sinks=data.sinks,
        gated=data.gated,
        output_gate=data.output_gate,
        rotated=data.rotated,
        value_tensor=data.value_tensor,
        kv_source_layer=data.kv_from,
    )


def _latent(kind: KindData) -> LatentAttention | None:
    data = kind.latent
    if data is None:
        return None
    return LatentAttention(
        n_heads=data.heads,
        kv_lora_rank=data.kv_lora,
        q_lora_rank=data.q_lora,
        nope_dim=data.nope,
        rope_dim=data.rope,
        value_dim=data.value,
        absorbed=data.absorbed,
        indexer=_indexer(data.indexer),
        output_gate=data.output_gate,
    )


def _indexer(data: IndexerData | None) -> Indexer | None:
    if data is None:
        return None
    return Indexer(n_heads=data.heads, head_dim=data.head_dim, n_chosen=data.chosen, own=data.own)


def _recurrent(kind: KindData) -> Mixer | None:
    if kind.delta_net is not None:
        net = kind.delta_net
        return GatedDeltaNet(
            n_key_heads=net.key_heads,
            n_value_heads=net.value_heads,
            head_dim=net.head_dim,
            conv_kernel=net.conv,
            joint_gates=net.joint_gates,
            decay=net.decay,
        )
    if kind.short_conv is not None:
        return ShortConv(conv_kernel=kind.short_conv.conv)
    if kind.mamba is None:
        return None
    return Mamba(
        version=kind.mamba.version,
        inner_dim=kind.mamba.inner,
        state_dim=kind.mamba.state,
        conv_kernel=kind.mamba.conv,
        n_groups=kind.mamba.groups,
        dt_rank=kind.mamba.rank,
    )


def _experts(data: ExpertsData, defaults: Mapping[str, object]) -> MoeFfn:
    router = data.router or defaults.get("router", "softmax")
    normalise = data.normalise if data.normalise is not None else defaults.get("normalise") is True
    return MoeFfn(
        n_experts=data.count,
        n_experts_used=data.used,
        n_ff_expert=data.width,
        n_ff_shared=data.shared,
        shared_gate=data.shared_gate,
        n_ff_dense=data.dense,
        router="sigmoid" if router == "sigmoid" else "softmax_weight" if router == "softmax_weight" else "softmax",
        selection_bias=data.selection_bias,
        normalise_weights=normalise,
        weights_scale=data.scale,
        gated=data.gated,
        fused=data.fused,
        bias=data.bias,
        down_scale=data.down_scale,
        clamped=data.clamped,
        shared_clamped=data.shared_clamped,
    )


def _vision(data: VisionData) -> Vision:
    return Vision(
        tower=data.tower,
        projector=data.projector,
        n_layers=data.layers,
        n_embd=data.embd,
        n_ff=data.ffn,
        n_heads=data.heads,
        patch_size=data.patch_size,
        image_size=data.image_size,
        facts=_facts(data.facts),
        rules={
            engine: ImageRule(rule=rule.rule, parameters=_facts(rule.parameters)) for engine, rule in data.rules.items()
        },
    )
