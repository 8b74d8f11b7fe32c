"""What vLLM refuses at start for this model, release and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from planner.engines.options import Options, missing_options
from planner.engines.refusals import first_reasons, groups_divide, heads_divide, kv_heads_divide
from planner.engines.versions import parse_version
from planner.engines.vllm.settings import Resolved, VllmSettings
from planner.engines.weight_formats import GROUP, GROUPED, UNQUANTIZED, weight_format
from planner.frozen import dataclass
from planner.memory.overhead import OverheadTable
from planner.model import LatentAttention, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmRules:
    """Lists read from ``profiles/engines/vllm.yaml``, by class, format, tower and family."""

    no_pipeline: frozenset[str] = frozenset()
    left_tree: Mapping[str, tuple[str, str]] = field(
        default_factory=dict
    )  # format -> first release without it, plug-in
    refuse_copied_tower: frozenset[str] = frozenset()  # towers that fail where their heads do not divide
    split_projectors: frozenset[str] = frozenset()  # written with parallel linears
    trust_remote_code: frozenset[str] = frozenset()  # families whose repositories bring code
    video_frames: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of a trial video: to 0.10, from 0.11
    options: Options = field(default_factory=dict)
    overhead: OverheadTable | None = None


def vllm_rules(data: Mapping[str, Any], options: Options, overhead: OverheadTable | None = None) -> VllmRules:
    """Return the rules that ``profiles/engines/vllm.yaml`` holds."""
    return VllmRules(
        no_pipeline=frozenset(data["no_pipeline"]),
        left_tree={name: (row[0], row[1]) for name, row in data["left_tree"].items()},
        refuse_copied_tower=frozenset(data["refuse_copied_tower"]),
        split_projectors=frozenset(data["split_projectors"]),
        trust_remote_code=frozenset(data["trust_remote_code"]),
        video_frames={name: (row[0], row[1]) for name, row in data["video_frames"].items()},
        options=options,
        overhead=overhead,
    )


_DEFAULTS = VllmSettings()


def refusals(
    model: Model, settings: VllmSettings, resolved: Resolved, version: str, rules: VllmRules
) -> tuple[str, ...]:
    """Return one line for each reason not to start."""
    option, n_ranks = "tensor_parallel_size", resolved.n_tensor_ranks
    changed = {name: None for name in VllmSettings.__slots__ if getattr(settings, name) != getattr(_DEFAULTS, name)}
    return missing_options(rules.options, changed, "vLLM", version) + first_reasons(
        (
            heads_divide(model.language, n_ranks, option),
            kv_heads_divide(model.language, n_ranks, option),
            _groups(model, settings, n_ranks),
            _pipeline(model, resolved, rules),
            _format(model, settings, version, rules),
            _length(model, resolved),
            _tower(model, settings, resolved, rules),
            _batch(settings, resolved),
        )
    )


def format_of(model: Model, settings: VllmSettings) -> str | None:
    """Return the quantisation word that applies, or None for plain weights."""
    word = settings.quantization or model.quantization
    return None if word is None or word.lower() in UNQUANTIZED | {"f16", "f32"} else word.lower()


def _groups(model: Model, settings: VllmSettings, n_ranks: int) -> str | None:
    word = format_of(model, settings)
    if word is None or weight_format(word) not in GROUPED:
        return None
    return groups_divide(model.language, GROUP, n_ranks, "tensor_parallel_size")


def _pipeline(model: Model, resolved: Resolved, rules: VllmRules) -> str | None:
    if resolved.n_pipeline_ranks == 1:
        return None
    asked = f"pipeline_parallel_size {resolved.n_pipeline_ranks}"
    if model.architecture_class in rules.no_pipeline:
        return f"{asked}: {model.architecture_class} has no pipeline parallelism"
    if resolved.n_pipeline_ranks > model.language.n_layers:
        return f"{asked} is more than the model's {model.language.n_layers} layers"
    return None


def _format(model: Model, settings: VllmSettings, version: str, rules: VllmRules) -> str | None:
    word = format_of(model, settings)
    gone, plugin = rules.left_tree.get({"nf4": "bitsandbytes"}.get(word or "", word or ""), ("", ""))
    if not gone or parse_version(version) < parse_version(gone):
        return None
    return f"{word} left vLLM's tree at {gone}; install {plugin} or use a release before it"


def _length(model: Model, resolved: Resolved) -> str | None:
    if resolved.max_model_len <= model.language.n_context_train:
        return None
    return f"max_model_len {resolved.max_model_len} is beyond the model's {model.language.n_context_train} positions"


def _tower(model: Model, settings: VllmSettings, resolved: Resolved, rules: VllmRules) -> str | None:
    vision = model.vision
    if vision is None or settings.mm_encoder_tp_mode == "data" or vision.tower not in rules.refuse_copied_tower:
        return None
    if vision.n_heads % resolved.n_tensor_ranks == 0:
        return None
    said = f"tensor_parallel_size {resolved.n_tensor_ranks} does not divide the vision tower's {vision.n_heads} heads"
    return f"{said}; set mm_encoder_tp_mode data"


def _batch(settings: VllmSettings, resolved: Resolved) -> str | None:
    tokens, seqs = settings.max_num_batched_tokens, settings.max_num_seqs
    if tokens is not None and seqs is not None and tokens < seqs:
        return f"max_num_batched_tokens {tokens} is less than max_num_seqs {seqs}"
    if tokens is not None and settings.enable_chunked_prefill is False and tokens < resolved.max_model_len:
        length = resolved.max_model_len
        return f"max_num_batched_tokens {tokens} is less than max_model_len {length} with chunked prefill off"
    return None


def has_latent_cache(model: Model) -> bool:
    """Whether any layer keeps a latent cache, which tensor parallelism does not divide."""
    return any(isinstance(layer.mixer, LatentAttention) for layer in model.language.layers)
