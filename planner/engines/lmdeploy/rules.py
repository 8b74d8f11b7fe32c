"""What LMDeploy refuses at start, and where its tower runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from planner.engines.lmdeploy.settings import LmdeploySettings, Resolved
from planner.engines.options import Options, missing_options
from planner.engines.refusals import first_reasons, groups_divide, heads_divide, kv_heads_divide
from planner.engines.versions import parse_version
from planner.frozen import dataclass
from planner.memory.overhead import OverheadTable
from planner.model import Attention, Model

_DEFAULTS = LmdeploySettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class LmdeployRules:
    """Lists read from ``profiles/engines/lmdeploy.yaml``: since when a family's tower runs in TurboMind itself."""

    native_tower: Mapping[str, str] = field(default_factory=dict)
    no_pytorch_kv_quantization: frozenset[str] = frozenset()
    split_projectors: frozenset[str] = frozenset()  # written with parallel linears
    trust_remote_code: frozenset[str] = frozenset()  # families whose repositories bring code
    options: Options = field(default_factory=dict)
    overhead: OverheadTable | None = None


def lmdeploy_rules(data: Mapping[str, Any], options: Options, overhead: OverheadTable | None = None) -> LmdeployRules:
    """Return the rules that ``profiles/engines/lmdeploy.yaml`` holds."""
    quiet = frozenset(data["no_pytorch_kv_quantization"])
    return LmdeployRules(
        native_tower=data["native_tower"],
        no_pytorch_kv_quantization=quiet,
        split_projectors=frozenset(data["split_projectors"]),
        trust_remote_code=frozenset(data["trust_remote_code"]),
        options=options,
        overhead=overhead,
    )


def native_tower(rules: LmdeployRules, family: str, version: str) -> bool:
    """Whether TurboMind runs the tower itself, split over the ranks, instead of PyTorch beside it."""
    since = rules.native_tower.get(family)
    return since is not None and not parse_version(version) < parse_version(since)


def refusals(
    model: Model, settings: LmdeploySettings, resolved: Resolved, version: str, rules: LmdeployRules
) -> tuple[str, ...]:
    """Return one line for each reason not to start."""
    changed = {n: None for n in LmdeploySettings.__slots__ if getattr(settings, n) != getattr(_DEFAULTS, n)}
    return missing_options(rules.options, changed, "LMDeploy", version) + first_reasons(
        (
            heads_divide(model.language, resolved.n_ranks, "tp"),
            kv_heads_divide(model.language, resolved.n_ranks, "tp"),
            _groups(model, settings, resolved),
            _share(resolved),
            _kv_policy(model, settings, resolved, rules),
            _length(model, resolved),
        )
    )


def weight_word(model: Model, settings: LmdeploySettings) -> str | None:
    """Return the quantisation word that applies to the weights, or None."""
    word = settings.model_format if settings.model_format not in {None, "hf"} else model.quantization
    return None if word is None or word.lower() in {"bf16", "fp16", "f16", "f32", "fp32"} else word


def _groups(model: Model, settings: LmdeploySettings, resolved: Resolved) -> str | None:
    if weight_word(model, settings) not in {"awq", "gptq", "w4a16", "compressed-tensors"}:
        return None
    return groups_divide(model.language, 128, resolved.n_ranks, "tp")


def _share(resolved: Resolved) -> str | None:
    if resolved.n_blocks_asked is None:
        return None
    if resolved.backend == "pytorch" or resolved.release >= (0, 15):
        return f"cache_max_entry_count {resolved.n_blocks_asked}: a count of blocks is refused, give a share below 1"
    return None


def _kv_policy(model: Model, settings: LmdeploySettings, resolved: Resolved, rules: LmdeployRules) -> str | None:
    policy = settings.quant_policy
    if policy == 0:
        return None
    if resolved.backend == "pytorch":
        quiet = model.family in rules.no_pytorch_kv_quantization
        return f"quant_policy {policy}: the PyTorch engine has no KV quantisation for this family" if quiet else None
    if policy not in {4, 8}:
        return f"quant_policy {policy}: TurboMind has 0, 4 and 8"
    dims = {layer.mixer.key_dim for layer in model.language.layers if isinstance(layer.mixer, Attention)}
    wrong = next((dim for dim in dims if dim != 128), None)
    return f"quant_policy {policy} needs a head size of 128, this model has {wrong}" if wrong else None


def _length(model: Model, resolved: Resolved) -> str | None:
    if resolved.session_len <= model.language.n_context_train:
        return None
    return f"session_len {resolved.session_len} is beyond the model's {model.language.n_context_train} positions"
