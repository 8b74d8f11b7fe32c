"""The one place that ties engine, machine and workload to a verdict: what fits, what does not, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

from planner.budget import Budget, DeviceBudget, ImageTokens, Verdict
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Model
from planner.placement.changes import Asked, smallest_change
from planner.placement.choices import settings_choices
from planner.placement.llama_cpp import balanced
from planner.placement.objective import Prefer, Quality, Score, active_fraction, decode_tokens_per_s
from planner.placement.recommend import Found, cache_choices, search
from planner.units import format_bytes
from planner.workload import Workload

GROWN_CONTEXT_TOKENS = 32768  # a context nobody asked for does not grow beyond this


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An answer: the verdict with its reasons, the bytes behind it, and what to paste.

    ``changes`` say what differs from the request where the verdict is ``fits_with_changes``.
    """

    verdict: Verdict
    model: Model
    engine: str
    engine_version: str
    machine: Machine
    workload: Workload
    budget: Budget | None = None
    settings: object = None
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    emitted: Emitted | None = None
    speed: Mapping[str, object] = field(default_factory=dict)
    alternatives: tuple[Plan, ...] = ()


_COUNT_WITHOUT_LAYERS = frozenset({"llama.cpp", "ollama"})  # exact weights, and a budget that says what is unknown


def judge(engine: Engine, model: Model, workload: Workload, machine: Machine, settings: object) -> Plan:
    """Return the verdict on exactly these settings: first whether the engine loads the model, then the bytes."""
    plan = Plan(
        verdict="unknown",
        model=model,
        engine=engine.name,
        engine_version=engine.version,
        machine=machine,
        workload=workload,
        settings=settings,
    )
    support = engine.loads(model)
    if support.verdict == "unsupported":
        return replace(plan, verdict="will_not_load", reasons=_support_reasons(support))
    if unread := nothing_computed(engine, model):
        return replace(plan, reasons=(*_support_reasons(support), unread))
    budget = engine.budget(model, workload, machine, settings)
    verdict, reasons = verdict_on(budget, workload, support)
    return replace(
        plan,
        verdict=verdict,
        budget=budget,
        reasons=reasons,
        emitted=engine.emit(model, workload, machine, settings),
    )


def nothing_computed(engine: Engine, model: Model) -> str:
    """Return why nothing can be computed for ``model``: its layers are not known. Empty where they are."""
    if engine.name in _COUNT_WITHOUT_LAYERS or model.language.layers or model.measurements:
        return ""
    return f"Nothing is computed: {model.language.facts.get('unknown', 'its layers are not known')}."


def _support_reasons(support: Support) -> tuple[str, ...]:
    ways = (f"Instead: {', or '.join(support.alternatives)}.",) if support.alternatives else ()
    return (support.reason, *ways) if support.reason else ways


def verdict_on(budget: Budget, workload: Workload, support: Support) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on a budget and its reasons; what is not known to load never fits."""
    verdict, reasons = _verdict(budget, workload)
    if support.verdict == "unknown" and verdict == "fits":
        verdict = "unknown"
    return verdict, reasons if support.verdict == "supported" else (*_support_reasons(support), *reasons)


def _verdict(budget: Budget, workload: Workload) -> tuple[Verdict, tuple[str, ...]]:
    if budget.refusals:
        return "will_not_load", budget.refusals
    too_long = context_shortage(budget.image_tokens, workload)
    if too_long:
        return "does_not_fit", (too_long, *budget.notes)
    short = tuple(shortage(device) for device in budget.short_devices)
    if short or budget.shortfalls:
        return "does_not_fit", (*budget.shortfalls, *short, *budget.notes)
    if budget.unknown:
        return "unknown", (*budget.unknown, *budget.notes)
    return "fits", budget.notes


def shortage(device: DeviceBudget) -> str:
    """Return by how much a device is short, with both figures."""
    sizes = f"up to {format_bytes(device.high_bytes)} needed, {format_bytes(device.free_bytes)} free."
    return f"{shortage_alone(device)}: {sizes}"


def shortage_alone(device: DeviceBudget) -> str:
    """Return by how much a device is short, for places where the figures stand beside it."""
    return f"{device.device} is {format_bytes(-device.headroom_bytes)} short"


def context_shortage(images: tuple[ImageTokens, ...], workload: Workload) -> str | None:
    """Return why the images and the prompt of one request cannot fit the context, or None."""
    n_tokens = sum(image.tokens + image.extra_tokens for image in images)
    if n_tokens < workload.context_tokens or not images:
        return _prompt_shortage(n_tokens, workload)
    return (
        f"The images alone are {n_tokens} tokens ({len(images)} image{'s' if len(images) > 1 else ''}), "
        f"the context is {workload.context_tokens}: ask for at least {n_tokens + workload.prompt_tokens} tokens "
        "of context, fewer or smaller images."
    )


def _prompt_shortage(n_image_tokens: int, workload: Workload) -> str | None:
    """Return why a prompt that was asked for leaves no room for an answer, or None."""
    needed = n_image_tokens + workload.prompt_tokens
    if not workload.prompt_asked or needed < workload.context_tokens:
        return None
    images = f" with {n_image_tokens} of its images" if n_image_tokens else ""
    return (
        f"The prompt is {needed} tokens{images}, the context is {workload.context_tokens}: ask for at least "
        f"{needed + workload.answer_tokens} tokens of context, or for a shorter prompt."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What ``recommend`` is asked: a model in any of its file types, and what the user holds fixed.

    ``variant`` makes the model in one file type. ``given`` names the settings the user wrote; ``context_given`` says
    whether the context is a demand or a default that may grow into free memory.
    """

    engine: Engine
    variant: Callable[[str | None], Model]
    quantizations: tuple[str | None, ...]
    workload: Workload
    machine: Machine
    settings: object
    given: frozenset[str]
    context_given: bool
    quality: Quality
    prefer: Prefer = "balanced"


def recommend(question: Question) -> Plan:
    """Return the best plan under ``question.prefer``, the runners-up as alternatives.

    When nothing fits as asked, the smallest change that does is the answer (``fits_with_changes``).
    """
    engine = question.engine
    first = question.variant(question.quantizations[0])
    support = engine.loads(first)
    if support.verdict == "unsupported":
        return judge(engine, first, question.workload, question.machine, question.settings)
    if not isinstance(question.settings, LlamaCppSettings):
        return _first_that_fits(question)
    return _searched(question, question.settings)


def _first_that_fits(question: Question) -> Plan:
    """Return the mildest settings that keep everything on the GPUs; else the best plan that fits, or is least short.

    For engines that place layers by themselves. File types come best first, and for each the settings that cost
    quality least; a plan with layers on the host is kept in mind while better ones are looked for.
    """
    plans: list[Plan] = []
    choices = settings_choices(question.settings, len(question.machine.gpus), question.given)
    adapt = question.engine.adapt
    for word in question.quantizations:
        model = question.variant(word)
        for settings in choices:
            fitted = settings if adapt is None else adapt(model, question.workload, question.machine, settings)
            plan = judge(question.engine, model, question.workload, question.machine, fitted)
            if plan.verdict == "fits" and _on_gpus(plan):
                best = _best_of([*plans, plan], question)
                return replace(best, alternatives=tuple([one for one in (*plans, plan) if one is not best][-2:]))
            plans.append(plan)
    return _best_of(plans, question)


def _best_of(plans: Sequence[Plan], question: Question) -> Plan:
    """Return the plan with most merit of those that fit; where none does, the one that is least short."""
    fitting = [plan for plan in plans if plan.verdict == "fits"]
    return max(fitting, key=lambda plan: _merit(plan, question)) if fitting else max(plans, key=_least_headroom)


def _on_gpus(plan: Plan) -> bool:
    """Whether no layer lies on the host beside a GPU."""
    return plan.budget is not None and bool(plan.machine.gpus) and plan.budget.devices[-1].layers is None


def _merit(plan: Plan, question: Question) -> tuple[float, ...]:
    """Return what plans that fit are compared by: the order of the user's preference."""
    assert plan.budget is not None  # noqa: S101 - a plan that fits has one
    score = Score(
        fits=True,
        on_gpu=_on_gpus(plan),
        tokens_per_s=decode_tokens_per_s(plan.budget, plan.machine, active_fraction(plan.model)),
        loss=question.quality.loss(plan.model.quantization),
        cache_loss=0,
        context_tokens=plan.workload.context_tokens,
        headroom_bytes=_least_headroom(plan),
    )
    return score.key(question.prefer)


def _least_headroom(plan: Plan) -> int:
    devices = plan.budget.devices if plan.budget else ()
    return min((device.headroom_bytes for device in devices), default=-(1 << 62))


def _searched(question: Question, settings: LlamaCppSettings) -> Plan:
    engine = question.engine
    models = [question.variant(word) for word in question.quantizations]
    choices = cache_choices(settings, question.given)

    def budget_of(model: Model, choice: LlamaCppSettings) -> Budget:
        return engine.budget(model, question.workload, question.machine, choice)

    found = search(models, question.workload, question.machine, choices, budget_of, question.quality, question.prefer)
    best = found[0]
    if not best.score.fits:
        return _changed(question, settings, models) or _plan_of(question, best.model, best.placed.settings)
    workload = question.workload if question.context_given else _grown(question, best)
    plan = judge(engine, best.model, workload, question.machine, best.placed.settings)
    others = tuple(_plan_of(question, one.model, one.placed.settings) for one in found[1:4])
    return replace(plan, alternatives=others)


def recommend_placement(  # noqa: PLR0913 - the whole question
    engine: Engine,
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: object,
    given: Iterable[str] = (),
) -> Budget:
    """Return the budget with the layers spread over the GPUs as well as they go, where the user left that open.

    Nothing that fits on the GPUs moves to the host for it.
    """
    budget = engine.budget(model, workload, machine, settings)
    fixed = {"tensor_split", "n_gpu_layers", "split_mode", "override_tensor", "n_cpu_moe"} & set(given)
    if fixed or not budget.short_devices or len(machine.gpus) < 2 or not isinstance(settings, LlamaCppSettings):
        return budget
    spread = balanced(model, workload, settings, budget)
    return budget if spread is None else engine.budget(model, workload, machine, spread)


def split_needed(budget: Budget, given: Iterable[str]) -> str:
    """Return the split of a recommended placement in the engine's own words; empty where it splits so itself."""
    split = budget.settings.get("tensor_split")
    if not isinstance(split, Sequence) or "tensor_split" in given:
        return ""
    return f"tensor_split {','.join(f'{share:g}' for share in split)}"


def _plan_of(question: Question, model: Model, settings: LlamaCppSettings) -> Plan:
    return judge(question.engine, model, question.workload, question.machine, settings)


def _grown(question: Question, best: Found) -> Workload:
    """Return the workload with the longest context, by doubling, that this very placement still holds."""
    workload, ceiling = question.workload, min(best.model.language.n_context_train, GROWN_CONTEXT_TOKENS)
    while workload.context_tokens * 2 <= ceiling:
        longer = replace(workload, context_tokens=workload.context_tokens * 2)
        budget = question.engine.budget(best.model, longer, question.machine, best.placed.settings)
        if budget.short_devices:
            break
        workload = longer
    return workload


def _same(model: Model) -> Model:
    return model


def _changed(question: Question, settings: LlamaCppSettings, models: list[Model]) -> Plan | None:
    asked = Asked(model=models[0], workload=question.workload, settings=settings)
    return _with_smallest_change(question.engine, asked, question.machine, models[1:])


def repaired(plan: Plan, engine: Engine, smaller: Sequence[Model] = ()) -> Plan | None:
    """Return the plan with the smallest change that makes it fit, None where no change does or none is known."""
    if not isinstance(plan.settings, LlamaCppSettings):
        return None
    asked = Asked(model=plan.model, workload=plan.workload, settings=plan.settings)
    changed = _with_smallest_change(engine, asked, plan.machine, smaller)
    return replace(changed, reasons=(*plan.reasons, *changed.reasons)) if changed else None


def _with_smallest_change(engine: Engine, asked: Asked, machine: Machine, smaller: Sequence[Model]) -> Plan | None:
    found = smallest_change(
        asked,
        machine,
        lambda request: engine.budget(request.model, request.workload, machine, request.settings),
        [partial(_same, model) for model in smaller],
    )
    if found is None:
        return None
    plan = judge(engine, found.asked.model, found.asked.workload, machine, found.asked.settings)
    return replace(plan, verdict="fits_with_changes", changes=found.changes)
