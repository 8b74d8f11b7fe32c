"""A ``Model`` becomes a profile: the YAML that loads back to the same model."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from planner.catalog.architectures import architecture_facts, layer_rules
from planner.errors import UsageError
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    GatedDeltaNet,
    LatentAttention,
    Mamba,
    MoeFfn,
    NoMixer,
    ShortConv,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from planner.model import Ffn, Language, Layer, Mixer, Model, Number, Vision

# noun's field → profile's key, where the two differ; fields at their default are left out
_ATTENTION = {"n_heads": "heads", "n_kv_heads": "kv_heads", "window_tokens": "window", "kv_source_layer": "kv_from"}
_LATENT = {
    "n_heads": "heads",
    "kv_lora_rank": "kv_lora",
    "q_lora_rank": "q_lora",
    "nope_dim": "nope",
    "rope_dim": "rope",
}
_CROSS = {"n_heads": "heads", "n_kv_heads": "kv_heads"}
_DELTA = {"n_key_heads": "key_heads", "n_value_heads": "value_heads", "conv_kernel": "conv"}
_MAMBA = {
    "inner_dim": "inner",
    "state_dim": "state",
    "conv_kernel": "conv",
    "n_groups": "groups",
    "dt_rank": "rank",
}
_EXPERTS = {
    "n_experts": "count",
    "n_experts_used": "used",
    "n_ff_expert": "width",
    "n_ff_shared": "shared",
    "n_ff_dense": "dense",
    "normalise_weights": "normalise",
    "weights_scale": "scale",
}
_ALWAYS = {"router", "normalise_weights", "version", "absorbed"}


def profile_of(model: Model, *, checked: date, source: str | None = None) -> dict[str, Any]:
    """Return the profile of ``model`` as the schema's mapping.

    Args:
        model: with layers that are known; tensors and formats are not part of a profile, the file type is.
        checked: the day it was read.
        source: what it was read from; None: what the model says.

    Raises:
        UsageError: its layers are not known, so that no profile could lead to a budget.
    """
    if not model.language.layers:
        reason = model.language.facts.get("unknown", "its layers are not known")
        raise UsageError(f"{model.name}: no profile can be written: {reason}")
    found: dict[str, Any] = {"name": profile_name(model.name), "family": model.family}
    if model.hf_id:
        found["hf_id"] = model.hf_id
    if model.architecture_class:
        found["architecture_class"] = model.architecture_class
    if model.parameters is not None and model.parameters.total > 0:
        found["parameters"] = {key: n for key, n in asdict(model.parameters).items() if n}
    if model.quantization is not None and model.language.tensors and not _in_the_usual_type(model):
        found["quantizations"] = [model.quantization]
    found["language"] = _language(model.language)
    if model.vision is not None and model.vision.n_layers > 0:
        found["vision"] = _vision(model.vision)
    found["source"] = source or f"read from {model.source.replace(chr(92), '/').rsplit('/', 1)[-1] or model.name}"
    found["checked"] = checked
    return found


def _in_the_usual_type(model: Model) -> bool:
    """Whether the file type is only what a folder or profile is planned in unless told otherwise: no limit to it."""
    from planner.catalog.models import DEFAULT_FILE_TYPE  # noqa: PLC0415 - not needed to write what a file holds

    free = model.stored is not None or DEFAULT_FILE_TYPE in model.file_types
    return free and model.quantization == DEFAULT_FILE_TYPE


def profile_yaml(model: Model, *, checked: date, source: str | None = None) -> str:
    """Return the profile of ``model`` as YAML text.

    Raises:
        UsageError: its layers are not known.
    """
    import yaml  # noqa: PLC0415 - 20 ms that most commands can spare

    data = profile_of(model, checked=checked, source=source)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def profile_name(text: str) -> str:
    """Return a name that is a file's name too: small letters, digits, dots and hyphens."""
    name = re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-.")
    return re.sub(r"\.{2,}", ".", name)[:80] or "model"


def _language(language: Language) -> dict[str, Any]:
    kinds, order = _kinds(language)
    found: dict[str, Any] = {
        "architecture": language.architecture,
        "layers": language.n_layers,
        "embd": language.n_embd,
        "vocab": language.n_vocab,
        "context": language.n_context_train,
        "tied": language.tied_embeddings,
        "post_norms": any(layer.post_norms for layer in language.layers),
        "mtp_layers": language.n_mtp_layers,
        "deepstack_layers": language.n_deepstack_layers,
        "embd_per_layer": language.n_embd_per_layer,
        "rope_factors": list(language.rope_factors),
    }
    found = {key: value for key, value in found.items() if value or key == "architecture"}
    facts = _facts(language.facts, architecture_facts(layer_rules(language.architecture) or {}))
    return found | {"kinds": kinds, "pattern": _pattern(order)} | ({"facts": facts} if facts else {})


def _kinds(language: Language) -> tuple[dict[str, Any], list[str]]:
    """Return the different layers by a name, and the name of each layer."""
    names: dict[Layer, str] = {}
    for layer in language.layers:
        names.setdefault(layer, f"{_kind_word(layer)}{len(names) + 1}")
    order = [names[layer] for layer in language.layers]
    if len(names) == 1:
        only = next(iter(names))
        return {"layer": _layer(only)}, ["layer"] * len(order)
    return {name: _layer(layer) for layer, name in names.items()}, order


def _kind_word(layer: Layer) -> str:
    match layer.mixer:
        case Attention(window_tokens=None):
            word = "full"
        case Attention():
            word = "windowed"
        case LatentAttention():
            word = "latent"
        case CrossAttention():
            word = "cross"
        case _:
            word = "linear"
    return word


def _pattern(order: list[str]) -> list[Any] | dict[str, Any]:
    """Return the shortest cycle that makes up ``order``, else the commonest kind and where the others are."""
    for length in range(1, len(order) // 2 + 1):
        if all(name == order[index % length] for index, name in enumerate(order)):
            return order[:length]
    if len(order) == 1:
        return order
    base = max(set(order), key=lambda name: (order.count(name), name))
    others = sorted(set(order) - {base}, key=order.index)
    return {"base": base} | {kind: [i for i, name in enumerate(order) if name == kind] for kind in others}


def _layer(layer: Layer) -> dict[str, Any]:
    found = _mixer(layer.mixer)
    return found | (_ffn(layer.ffn) if layer.ffn is not None else {})


def _mixer(mixer: Mixer) -> dict[str, Any]:  # noqa: PLR0911 - one return per kind
    match mixer:
        case Attention():
            return {"attention": _named(mixer, _ATTENTION)}
        case LatentAttention():
            return {"latent": _latent(mixer)}
        case CrossAttention():
            return {"cross": _named(mixer, _CROSS)}
        case GatedDeltaNet():
            return {"delta_net": _named(mixer, _DELTA)}
        case ShortConv():
            return {"short_conv": _named(mixer, {"conv_kernel": "conv"})}
        case Mamba():
            return {"mamba": _named(mixer, _MAMBA)}
        case NoMixer():
            return {"no_mixer": True}


def _latent(mixer: LatentAttention) -> dict[str, Any]:
    found = _named(mixer, {**_LATENT, "value_dim": "value"})
    if mixer.indexer is not None:
        found["indexer"] = _named(mixer.indexer, {"n_heads": "heads", "n_chosen": "chosen"})
    return found


def _ffn(ffn: Ffn) -> dict[str, Any]:
    if isinstance(ffn, DenseFfn):
        return {"ffn": _named(ffn, {"n_ff": "width"})}
    assert isinstance(ffn, MoeFfn)  # noqa: S101 - the union has two members
    return {"experts": _named(ffn, _EXPERTS)}


def _named(noun: Any, renamed: Mapping[str, str]) -> dict[str, Any]:  # noqa: ANN401 - any of the nouns above
    """Return a noun's fields by the profile's keys, without those at their default."""
    from dataclasses import MISSING, fields  # noqa: PLC0415 - one use

    found: dict[str, Any] = {}
    for field in fields(noun):
        value = getattr(noun, field.name)
        if field.default is MISSING or value != field.default or field.name in _ALWAYS:
            found[renamed.get(field.name, field.name)] = value
    return found


def _facts(facts: Mapping[str, Number], known: Mapping[str, Number]) -> dict[str, Any]:
    """Return the facts that the architecture does not bring along, without what only describes the reading."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in facts.items()
        if key not in known and key not in {"unknown", "assumed"}
    }


def _vision(vision: Vision) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tower": vision.tower,
        "projector": vision.projector,
        "layers": vision.n_layers,
        "embd": vision.n_embd,
        "ffn": vision.n_ff,
        "heads": vision.n_heads,
        "patch_size": vision.patch_size,
        "image_size": vision.image_size,
    }
    if facts := _facts({**vision.facts, **_stored_facts(vision)}, {}):
        found["facts"] = facts
    rules = {
        engine: {"rule": rule.rule, "parameters": _facts(rule.parameters, {})} for engine, rule in vision.rules.items()
    }
    return found | ({"rules": rules} if rules else {})


def _stored_facts(vision: Vision) -> dict[str, Number]:
    """Return what only the stored tensors say: rows of positions, blocks of another width, layers that feed deeper."""
    shapes = {tensor.name: tensor.shape for tensor in vision.tensors}
    found: dict[str, Number] = {}
    if "v.position_embd.weight" in shapes:
        found["n_positions"] = max(shapes["v.position_embd.weight"][1:])
    block = shapes.get("v.blk.0.ffn_up.weight", (0, vision.n_ff))[-1]
    if block != vision.n_ff:
        found["block_ff"] = block
    if "v.std_scale" in shapes:
        found["standardise"] = True
    deep = sorted({int(name.split(".")[2]) for name in shapes if re.match(r"v\.deepstack\.\d{1,4}\.", name)})
    return found | ({"deepstack_layers": tuple(deep)} if deep else {})
