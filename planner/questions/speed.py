"""How fast a plan is: every stage as a range, which one dominates, and a warning when a plan fits but is slow."""

from __future__ import annotations

from dataclasses import replace

from planner.advice import Plan
from planner.catalog.tables import speed_table
from planner.placement.objective import READING_TOKENS_PER_S
from planner.quantization import FORMATS
from planner.speed.plan import PlanSpeed, plan_speed

DOMINANT = 0.5  # share of the time to the first token


def with_speed(plan: Plan) -> Plan:
    """Return the plan with its speed, and with a reason where it is slow; as it is where nothing is placed."""
    speed = speed_of(plan)
    if speed is None:
        return plan
    reasons = (*plan.reasons, *slow_reasons(plan, speed)) if plan.verdict.startswith("fits") else plan.reasons
    return replace(plan, speed=speed.as_mapping(), reasons=reasons)


def speed_of(plan: Plan) -> PlanSpeed | None:
    """Return the speed of a plan, None without a budget or without a language model in it."""
    budget = plan.budget
    if budget is None or plan.verdict == "will_not_load" or not plan.model.language.layers:
        return None
    if not any(item.component == "weights" for device in budget.devices for item in device.items):
        return None
    return plan_speed(
        plan.model,
        plan.machine,
        plan.workload,
        budget,
        engine=plan.engine,
        table=speed_table(),
        kv_element_bytes=_cache_bytes(str(budget.settings.get("cache_type_k", "f16"))),
    )


def _cache_bytes(cache_type: str) -> float:
    known = FORMATS.get(cache_type)
    return known.block_bytes / known.block_elements if known else 2.0


def slow_reasons(plan: Plan, speed: PlanSpeed) -> list[str]:
    """Return what makes a plan slower than reading along, or its first token late, and what would help."""
    found = []
    host = plan.budget.devices[-1] if plan.budget else None
    rate = speed.tokens_per_s[1]
    if rate < READING_TOKENS_PER_S:
        held = host.layers if host is not None and plan.machine.gpus else None
        why = f": layers {held[0]} to {held[1]} are read from host memory" if held else ""
        found.append(
            f"Slow: about {rate:.1f} tokens/s, less than one reads{why}. A smaller file type, or a model with fewer "
            "active weights, is faster in proportion."
        )
    stages = {stage.name: stage.expected_s for stage in (speed.image_decode, speed.prefill)}
    if speed.encode is not None:
        stages["encode"] = speed.encode.expected_s
    total = sum(stages.values())
    name, seconds = max(stages.items(), key=lambda stage: stage[1])
    if total >= 2 and seconds > DOMINANT * total:
        found.append(f"The first token waits about {total:.1f} s, {seconds:.1f} s of it for {_said(name, plan)}.")
    return found


def _said(stage: str, plan: Plan) -> str:
    """Return what the dominant stage is and what shortens it on this machine."""
    images = plan.budget.image_tokens if plan.budget else ()
    if stage == "image_decode":
        return "decoding and resizing the images; smaller files help"
    if stage == "encode":
        if _on_host(plan, "vision"):
            return "encoding the images on the CPU; the encoder on a GPU helps most, then smaller images"
        fixed = any(image.cross_tokens for image in images)
        helps = (
            "its work is the same for every size, only a faster GPU helps" if fixed else "smaller or fewer images help"
        )
        return f"encoding the images; {helps}"
    helps = "fewer image tokens help" if images else "a shorter prompt helps"
    more = ", more layers on a GPU most" if _on_host(plan, "language") else ""
    return f"processing the prompt; {helps}{more}"


def _on_host(plan: Plan, part: str) -> bool:
    """Whether layers (language) or the encoder (vision) are computed by the CPU."""
    host = plan.budget.devices[-1] if plan.budget else None
    if host is None:
        return False
    if part == "language":
        return host.layers is not None
    return any(item.part == part and item.component == "weights" and item.expected_bytes for item in host.items)
