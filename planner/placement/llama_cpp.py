"""Where llama.cpp's layers go: the deepest offload that fits, split so that the fullest GPU keeps most to spare.

Weights and cache of a place (a layer or the output) are exact and independent of the split; only the compute buffers
depend on it. So the search works on the exact bytes of places with the compute of the last plan tried, and every
plan it returns was confirmed by the whole budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.budget import Budget, DeviceBudget
from planner.engines.llama_cpp.kv_cache import CacheSettings, layer_cache_bytes, widest_value_row
from planner.engines.llama_cpp.layout import HOST, Layout, layer_of, n_slots, place_weights
from planner.engines.llama_cpp.settings import LlamaCppSettings, resolve
from planner.engines.llama_cpp.weights import weight_bytes
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Language, Model, MoeFfn
from planner.placement.fill import fill, spread
from planner.placement.objective import GPU_BANDWIDTH
from planner.placement.offload import Search, Trial
from planner.remembered import remembered
from planner.workload import Workload

BudgetOf = Callable[[LlamaCppSettings], Budget]
MAX_TRIALS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Settings with the budget that they really lead to."""

    settings: LlamaCppSettings
    budget: Budget

    @property
    def fits(self) -> bool:
        """Whether every device, the host included, holds the high bound."""
        return not self.budget.short_devices and not self.budget.refusals


def place_costs(
    model: Model, workload: Workload, settings: LlamaCppSettings, *, flash_attn: bool
) -> tuple[list[int], list[int]]:
    """Return the bytes of each place on a GPU: all of it, and the part that is experts (layers first, output last)."""
    weights, experts = _weight_costs(model.language)
    costs = list(weights)
    if not settings.no_kv_offload:
        for index, n_bytes in enumerate(_cache_costs(model.language, workload, settings, flash_attn=flash_attn)):
            costs[index] += n_bytes
    return costs, list(experts)


@remembered
def _weight_costs(language: Language) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bytes of each place's weights, and of the experts among them."""
    n_layers = n_slots(language)
    layout = Layout(n_gpus=1, slots=(0,) * n_layers, output=0)
    costs, experts = [0] * (n_layers + 1), [0] * (n_layers + 1)
    for tensor, device in place_weights(language, layout):
        if device == HOST:
            continue
        layer = layer_of(tensor.name)
        place = n_layers if layer is None else layer
        n_bytes = weight_bytes(tensor, device)
        costs[place] += n_bytes
        if "_exps." in tensor.name:
            experts[place] += n_bytes
    return tuple(costs), tuple(experts)


def _cache_costs(language: Language, workload: Workload, settings: LlamaCppSettings, *, flash_attn: bool) -> list[int]:
    cache = CacheSettings(
        resolved=resolve(settings, workload, language.n_context_train),
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        flash_attn=flash_attn,
        offload=True,
        swa_full=settings.swa_full,
    )
    widest = None if flash_attn else widest_value_row(language)
    known: dict[object, int] = {}
    costs = []
    for layer in language.layers:
        if layer.mixer not in known:
            known[layer.mixer] = layer_cache_bytes(layer.mixer, language.n_embd, cache, widest)
        costs.append(known[layer.mixer])
    return costs


def place(  # noqa: PLR0913 - the whole question
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: LlamaCppSettings,
    budget_of: BudgetOf,
    *,
    all_gpus: bool = False,
) -> Placed:
    """Return the best placement for otherwise fixed ``settings``, or the first one tried when none fits.

    Deepest first: everything on the GPUs, as few of them as hold it (``all_gpus``: on all of them); for mixtures of
    experts then the experts of as few first layers as possible on the host; then as many last layers as fit; and the
    CPU alone. Where the first GPU has no room for the projector, that goes to the host; where it has none for the
    host's large batches either, they stay there; where not even a process fits, the GPUs are hidden from it.
    """
    first = _place(model, workload, machine, settings, budget_of, all_gpus=all_gpus)
    if first.fits or not machine.gpus:
        return first
    for choice in (
        replace(settings, no_mmproj_offload=True),
        replace(settings, no_mmproj_offload=True, no_op_offload=True),
    ):
        placed = _place(model, workload, machine, choice, budget_of, all_gpus=all_gpus)
        if placed.fits:
            return placed
    hidden = _confirmed(replace(settings, device="none", n_gpu_layers=0), budget_of)
    return hidden if hidden.fits else first


def _place(  # noqa: PLR0913 - the whole question
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: LlamaCppSettings,
    budget_of: BudgetOf,
    *,
    all_gpus: bool = False,
) -> Placed:
    """Return the best placement with the projector and large batches where ``settings`` say."""
    if not machine.gpus:
        return _confirmed(replace(settings, n_gpu_layers=0), budget_of)
    n_gpus = len(machine.gpus)
    everything = _confirmed(_offloaded(settings, model, None, n_gpus), budget_of)
    costs, experts = place_costs(model, workload, settings, flash_attn=settings.flash_attn != "off")
    speeds = None if all_gpus else [float(gpu.bandwidth_bytes_per_s or GPU_BANDWIDTH) for gpu in machine.gpus]
    found = _offload(model, settings, everything, costs, experts, budget_of, speeds)
    if not any(experts) or (found.fits and _n_offloaded(found.settings, model) == len(costs)):
        return found
    spilled = _spill_experts(model, settings, everything, costs, experts, budget_of, machine)
    if spilled.fits:
        return spilled
    bare = replace(settings, n_cpu_moe=model.language.n_layers)
    start = _confirmed(_offloaded(bare, model, None, n_gpus), budget_of)
    deepest = _offload(model, bare, start, costs, experts, budget_of, speeds)
    deeper = _n_offloaded(deepest.settings, model) > _n_offloaded(found.settings, model)
    return deepest if deepest.fits and (deeper or not found.fits) else found


def balanced(model: Model, workload: Workload, settings: LlamaCppSettings, budget: Budget) -> LlamaCppSettings | None:
    """Return the settings that leave the fullest GPU most to spare with all places on GPUs, None if they cannot fit."""
    costs, experts = place_costs(model, workload, settings, flash_attn=settings.flash_attn != "off")
    tried = Placed(settings=settings, budget=budget)
    counts = spread(costs, _spare(tried, costs, experts, budget.n_gpus, model))
    return None if counts is None else _offloaded(settings, model, counts, budget.n_gpus)


def _confirmed(settings: LlamaCppSettings, budget_of: BudgetOf) -> Placed:
    return Placed(settings=settings, budget=budget_of(settings))


def _n_offloaded(settings: LlamaCppSettings, model: Model) -> int:
    n_places = n_slots(model.language) + 1
    return n_places if settings.n_gpu_layers < 0 else min(settings.n_gpu_layers, n_places)


def _offloaded(settings: LlamaCppSettings, model: Model, counts: Sequence[int] | None, n_gpus: int) -> LlamaCppSettings:
    """Return the settings that put ``counts`` places on each GPU; None: all of them, split by free memory."""
    n_places = n_slots(model.language) + 1
    if counts is None:
        return replace(settings, n_gpu_layers=n_places, tensor_split=None)
    split = [float(count) for count in counts] if n_gpus > 1 and any(counts) else None
    return replace(settings, n_gpu_layers=sum(counts), tensor_split=split)


def _spare(placed: Placed, costs: Sequence[int], experts: Sequence[int], n_gpus: int, model: Model) -> list[int]:
    """Return what each GPU has for places: its free bytes less all that is no place in this plan."""
    n_places = len(costs)
    n_offloaded = _n_offloaded(placed.settings, model)
    counts = [int(share) for share in placed.settings.tensor_split or ()] or None
    used = _run_costs(costs, experts, placed.settings, n_places - n_offloaded, counts, placed.budget)
    return [
        device.free_bytes - (device.high_bytes - used[index])
        for index, device in enumerate(placed.budget.devices[:n_gpus])
    ]


def _run_costs(  # noqa: PLR0913 - the facts of one plan
    costs: Sequence[int],
    experts: Sequence[int],
    settings: LlamaCppSettings,
    first: int,
    counts: Sequence[int] | None,
    budget: Budget,
) -> list[int]:
    """Return the bytes of the places that each GPU holds in ``budget``."""
    spilled = [
        cost - (expert if index < settings.n_cpu_moe else 0)
        for index, (cost, expert) in enumerate(zip(costs, experts, strict=True))
    ]
    if counts is not None:
        used, index = [], first
        for count in counts:
            used.append(sum(spilled[index : index + count]))
            index += count
        return used
    return [_held(device.layers, has_output=device.has_output, costs=spilled) for device in budget.devices]


def _held(layers: tuple[int, int] | None, *, has_output: bool, costs: Sequence[int]) -> int:
    held = sum(costs[layers[0] : layers[1] + 1]) if layers else 0
    return held + (costs[-1] if has_output else 0)


def _offload(  # noqa: PLR0913 - one search step needs them all
    model: Model,
    settings: LlamaCppSettings,
    start: Placed,
    costs: list[int],
    experts: list[int],
    budget_of: BudgetOf,
    speeds: Sequence[float] | None,
) -> Placed:
    """Return the deepest offload that fits, by the search over splits; the CPU alone if nothing fits.

    The experts of the first ``settings.n_cpu_moe`` layers stay on the host. ``start`` is everything on the GPUs.
    """
    gpus = start.budget.devices[:-1]
    if start.fits and len(gpus) == 1:
        return start
    held = _without(costs, experts, settings.n_cpu_moe)
    confirmed: dict[tuple[int, ...], Placed] = {}

    def confirm(counts: tuple[int, ...]) -> Trial:
        placed = _confirmed(_offloaded(settings, model, counts, len(gpus)), budget_of)
        confirmed[counts] = placed
        spare = _spare(placed, costs, experts, len(gpus), model)
        fixed = tuple(gpu.free_bytes - n for gpu, n in zip(gpus, spare, strict=True))
        return Trial(fixed_bytes=fixed, fits=placed.fits)

    search = Search(
        costs=held,
        free_bytes=[gpu.free_bytes for gpu in gpus],
        floor_bytes=[_floor(gpu) for gpu in gpus],
        speeds=speeds if len(gpus) > 1 else None,
        confirm=confirm,
    )
    best = search.run()
    if best is not None:
        return confirmed[best]
    return _confirmed(replace(settings, n_gpu_layers=0, tensor_split=None), budget_of)


def _floor(gpu: DeviceBudget) -> int:
    """Return what the GPU holds whatever the split: all but the language model's weights, cache and buffers."""
    return sum(item.high_bytes for item in gpu.items if item.part != "language" or item.component == "overhead")


def _spill_experts(  # noqa: PLR0913 - one search step needs them all
    model: Model,
    settings: LlamaCppSettings,
    start: Placed,
    costs: list[int],
    experts: list[int],
    budget_of: BudgetOf,
    machine: Machine,
) -> Placed:
    """Return the plan with all layers on the GPUs and the experts of as few first layers as possible on the host."""
    n_gpus = len(machine.gpus)
    n_layers = model.language.n_layers
    low = next(i for i, layer in enumerate(model.language.layers) if isinstance(layer.ffn, MoeFfn)) + 1
    current = _confirmed(replace(start.settings, n_cpu_moe=n_layers), budget_of)
    best = current
    for _ in range(MAX_TRIALS):
        capacities = _spare(current, costs, experts, n_gpus, model)
        n_spilled = _fewest_spilled(costs, experts, capacities, low, n_layers)
        if n_spilled is None or (best.fits and n_spilled >= best.settings.n_cpu_moe and current is not start):
            break
        counts = spread(_without(costs, experts, n_spilled), capacities)
        if counts is None:
            break
        trial = _confirmed(replace(_offloaded(settings, model, counts, n_gpus), n_cpu_moe=n_spilled), budget_of)
        if trial.fits:
            best = trial
        else:
            low = n_spilled + 1
        current = trial
    return best


def _without(costs: Sequence[int], experts: Sequence[int], n_spilled: int) -> list[int]:
    return [cost - (experts[i] if i < n_spilled else 0) for i, cost in enumerate(costs)]


def _fewest_spilled(
    costs: Sequence[int], experts: Sequence[int], capacities: Sequence[int], low: int, high: int
) -> int | None:
    if low > high or fill(_without(costs, experts, high), capacities) is None:
        return None
    while low < high:
        middle = (low + high) // 2
        if fill(_without(costs, experts, middle), capacities) is None:
            low = middle + 1
        else:
            high = middle
    return low
