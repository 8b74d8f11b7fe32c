"""The smallest change that makes a request fit, in a fixed order: what costs the user least comes first.

Order: ubatch, cache type, image limit, context, batch and sequences, file type, offload. First each change alone, from
mild to strong; if none is enough alone, changes are added up in the same order until the request fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from planner.budget import Budget
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Model
from planner.placement.llama_cpp import Placed, place
from planner.workload import Workload

MIN_CONTEXT_TOKENS = 2048
UBATCHES = (256, 128, 64)
CACHE_TYPES = ("q8_0", "q4_0")
IMAGE_LIMITS = (2048, 1024, 512, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as far as changes touch it."""

    model: Model
    workload: Workload
    settings: LlamaCppSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A request that fits, with what was changed in words."""

    asked: Asked
    budget: Budget
    changes: tuple[str, ...]


BudgetOf = Callable[[Asked], Budget]
Step = Callable[[Asked], Iterator[tuple[Asked, str]]]


def smallest_change(
    asked: Asked, machine: Machine, budget_of: BudgetOf, smaller_models: Sequence[Callable[[], Model]]
) -> Changed | None:
    """Return the mildest change that fits, None when nothing of the kind does.

    ``smaller_models``: the same model in the file types below the one asked, best first, made when needed.
    """
    steps: list[Step] = [_ubatch, _cache_types, _image_limit, _context, _sequences]
    steps.append(lambda request: _file_types(request, smaller_models))
    steps.append(lambda request: _offload(request, machine, budget_of))
    return _single(asked, steps, budget_of) or _added(asked, steps, budget_of)


def _fits(budget: Budget) -> bool:
    return not (budget.short_devices or budget.refusals or budget.unknown)


def _single(asked: Asked, steps: Sequence[Step], budget_of: BudgetOf) -> Changed | None:
    for step in steps:
        for changed, words in step(asked):
            budget = budget_of(changed)
            if _fits(budget):
                return Changed(asked=changed, budget=budget, changes=(words,))
    return None


def _added(asked: Asked, steps: Sequence[Step], budget_of: BudgetOf) -> Changed | None:
    """Take the strongest form of each step in turn until the request fits."""
    current, said = asked, tuple[str, ...]()
    for step in steps:
        strongest = None
        for changed, words in step(current):
            strongest = (changed, (*said, words))
            budget = budget_of(changed)
            if _fits(budget):
                return Changed(asked=changed, budget=budget, changes=strongest[1])
        if strongest is not None:
            current, said = strongest
    return None


def _ubatch(asked: Asked) -> Iterator[tuple[Asked, str]]:
    for size in UBATCHES:
        if size < asked.settings.ubatch_size:
            yield replace(asked, settings=replace(asked.settings, ubatch_size=size)), f"ubatch_size {size}"


def _cache_types(asked: Asked) -> Iterator[tuple[Asked, str]]:
    if asked.settings.cache_type_k != "f16" or asked.settings.flash_attn == "off":
        return
    for name in CACHE_TYPES:
        settings = replace(asked.settings, cache_type_k=name, cache_type_v=name, flash_attn="on")
        yield replace(asked, settings=settings), f"cache_type_k and cache_type_v {name}"


def _image_limit(asked: Asked) -> Iterator[tuple[Asked, str]]:
    if not asked.workload.images or "image_max_tokens" not in _dynamic_words(asked.model):
        return
    for limit in IMAGE_LIMITS:
        if limit < (asked.settings.image_max_tokens or 1 << 30):
            settings = replace(asked.settings, image_max_tokens=limit)
            yield replace(asked, settings=settings), f"image_max_tokens {limit}"


def _dynamic_words(model: Model) -> tuple[str, ...]:
    rule = model.vision.rules.get("mtmd") if model.vision else None
    return ("image_max_tokens",) if rule and rule.rule in {"smart_resize", "navit_resize", "pooled_budget"} else ()


def _context(asked: Asked) -> Iterator[tuple[Asked, str]]:
    tokens = asked.settings.ctx_size or asked.workload.context_tokens
    while tokens // 2 >= MIN_CONTEXT_TOKENS:
        tokens //= 2
        if asked.settings.ctx_size:
            yield replace(asked, settings=replace(asked.settings, ctx_size=tokens)), f"ctx_size {tokens}"
        else:
            yield replace(asked, workload=replace(asked.workload, context_tokens=tokens)), f"context {tokens}"


def _sequences(asked: Asked) -> Iterator[tuple[Asked, str]]:
    n = asked.workload.sequences
    while n > 1 and asked.settings.parallel is None:
        n //= 2
        yield replace(asked, workload=replace(asked.workload, sequences=n)), f"sequences {n}"


def _file_types(asked: Asked, smaller: Sequence[Callable[[], Model]]) -> Iterator[tuple[Asked, str]]:
    for make in smaller:
        model = make()
        yield replace(asked, model=model), f"quantization {model.quantization}"


def _offload(asked: Asked, machine: Machine, budget_of: BudgetOf) -> Iterator[tuple[Asked, str]]:
    if not machine.gpus:
        return
    placed: Placed = place(
        asked.model,
        asked.workload,
        machine,
        asked.settings,
        lambda settings: budget_of(replace(asked, settings=settings)),
    )
    settings = placed.settings
    words = [f"n_gpu_layers {settings.n_gpu_layers}"]
    words += [f"n_cpu_moe {settings.n_cpu_moe}"] if settings.n_cpu_moe else []
    words += [f"tensor_split {settings.tensor_split}"] if settings.tensor_split else []
    yield replace(asked, settings=settings), ", ".join(words)
