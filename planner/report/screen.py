"""A plan as plain text that reads well in 80 and in 120 columns."""

from __future__ import annotations

import textwrap

from planner.advice import Plan
from planner.budget import DeviceBudget, Item
from planner.units import format_bytes

_VERDICTS = {
    "fits": "FITS",
    "fits_with_changes": "FITS WITH CHANGES",
    "does_not_fit": "DOES NOT FIT",
    "will_not_load": "WILL NOT LOAD",
    "unknown": "UNKNOWN",
}
_SIMULATED = "SIMULATED: described, not detected; a described GPU counts as empty."
_FULL, _MAYBE, _FREE = "#", "+", "."


def plan_screen(plan: Plan, width: int = 80, *, explain: bool = False) -> str:
    """Return the whole answer as lines of at most ``width`` columns (commands are never broken)."""
    blocks = [_headline(plan)]
    if plan.machine.simulated:
        blocks.append(_SIMULATED)
    blocks += [_paragraph(change, width, "change: ") for change in plan.changes]
    blocks += [_paragraph(reason, width, "- ") for reason in plan.reasons]
    text = ["\n".join(blocks)]
    if plan.budget:
        text += [device_block(device, width) for device in plan.budget.devices if device.items]
        if plan.budget.image_tokens:
            text.append(_images(plan))
        elif plan.model.vision is not None:
            text.append("Images: planned without any; add --image WxH, like --image 1920x1080.")
        if explain:
            text.append(explanation(plan, width))
    if plan.speed:
        text.append(_speed(plan))
    if plan.emitted and plan.emitted.command:
        text.append("Run:\n" + textwrap.indent(plan.emitted.command, "  "))
        if plan.emitted.config:
            text.append(textwrap.indent(plan.emitted.config, "  "))
    if plan.alternatives:
        text.append(_alternatives(plan))
    return "\n\n".join(text)


def _headline(plan: Plan) -> str:
    quantization = f" {plan.model.quantization}" if plan.model.quantization else ""
    name = f"{_VERDICTS[plan.verdict]}: {plan.model.name}{quantization} on {plan.engine} {plan.engine_version}"
    return f"{name}, {_load(plan)}" if plan.budget else name


def _load(plan: Plan) -> str:
    workload = plan.workload
    times = f" x {workload.sequences} sequences" if workload.sequences > 1 else ""
    batch = f", batch {workload.batch}" if workload.batch > 1 else ""
    return f"context {workload.context_tokens}{times}{batch}"


def _paragraph(text: str, width: int, first: str) -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)


def device_block(device: DeviceBudget, width: int = 80) -> str:
    """Return one device: a bar over its free memory, then its items."""
    title = f"{device.device}  {device.name}".rstrip()
    sizes = f"{format_bytes(device.free_bytes)} free of {format_bytes(device.total_bytes)}"
    lines = [f"{title}  {sizes}", f"  {_bar(device, width - 4)}", f"  {_balance(device)}"]
    lines += [_item_line(item) for item in device.items if item.high_bytes]
    layers = _layers(device)
    return "\n".join([*lines, f"  layers     {layers}"] if layers else lines)


def _bar(device: DeviceBudget, width: int) -> str:
    scale = max(device.free_bytes, device.high_bytes, 1)
    inner = width - 2
    full = min(inner, round(inner * device.expected_bytes / scale))
    maybe = min(inner - full, round(inner * (device.high_bytes - device.expected_bytes) / scale))
    return "[" + _FULL * full + _MAYBE * maybe + _FREE * (inner - full - maybe) + "]"


def _balance(device: DeviceBudget) -> str:
    sign = "spare" if device.headroom_bytes >= 0 else "SHORT"
    return (
        f"{format_bytes(device.expected_bytes)} expected, {format_bytes(device.high_bytes)} at most, "
        f"{format_bytes(abs(device.headroom_bytes))} {sign}"
    )


def _item_line(item: Item) -> str:
    size = format_bytes(item.expected_bytes)
    extra = "" if item.high_bytes == item.expected_bytes else f" (up to {format_bytes(item.high_bytes)})"
    return f"  {item.component:<10} {item.part:<10} {size:>11}  {item.basis}{extra}"


def _layers(device: DeviceBudget) -> str:
    if device.layers is None:
        return "output only" if device.has_output else ""
    first, last = device.layers
    return f"{first} to {last} ({last - first + 1})" + (" + output" if device.has_output else "")


def _images(plan: Plan) -> str:
    assert plan.budget is not None  # noqa: S101 - narrowed by the caller
    lines = ["Images"]
    counts: dict[str, int] = {}
    for image in plan.budget.image_tokens:
        counts[image.image] = counts.get(image.image, 0) + 1
    seen: set[str] = set()
    for image in plan.budget.image_tokens:
        if image.image in seen:
            continue
        seen.add(image.image)
        times = f"{counts[image.image]} x " if counts[image.image] > 1 else ""
        cross = f", {image.cross_tokens} cross-attention tokens" if image.cross_tokens else ""
        lines.append(
            f"  {times}{image.image}: {image.tokens} tokens + {image.extra_tokens}{cross}, "
            f"resized to {image.resized_to}, {image.tiles} tile{'s' if image.tiles > 1 else ''}"
        )
    return "\n".join(lines)


_STAGES = {
    "decode_tokens_per_s": ("one sequence", "tokens/s"),
    "all_streams_tokens_per_s": ("all sequences", "tokens/s"),
    "prefill_tokens_per_s": ("prompt", "tokens/s"),
    "image_decode_s": ("image files", "s"),
    "encode_s": ("images", "s"),
    "first_token_s": ("first token", "s"),
    "load_s": ("load", "s"),
}


def _speed(plan: Plan) -> str:
    lines = ["Speed, expected (low to high)"]
    single = plan.workload.sequences * plan.workload.batch == 1
    for key, (name, unit) in _STAGES.items():
        row = plan.speed.get(key)
        if isinstance(row, dict) and row["high"] and not (single and key == "all_streams_tokens_per_s"):
            low, expected, high = (_figure(row[word]) for word in ("low", "expected", "high"))
            name = name if single or key != "prefill_tokens_per_s" else "prompt, each"  # noqa: PLW2901 - shown so
            lines.append(f"  {name:<13} {expected} {unit} ({low} to {high}), {row['bound_by']}  {row['basis']}")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _alternatives(plan: Plan) -> str:
    return "\n".join(["Alternatives", *dict.fromkeys(f"  {_alternative(other)}" for other in plan.alternatives)])


def _alternative(plan: Plan) -> str:
    verdict = _VERDICTS[plan.verdict].lower()
    name = " ".join(word for word in (plan.engine, plan.model.quantization) if word)
    if plan.budget is None:
        return f"{name}: {verdict}; {' '.join(plan.reasons)}"
    spare = min(device.headroom_bytes for device in plan.budget.devices if device.items)
    room = f"{format_bytes(abs(spare))} {'spare' if spare >= 0 else 'short'}"
    return f"{name}{_differences(plan)}: {verdict}, {room}"


def _differences(plan: Plan) -> str:
    """Return what sets a plan apart: cache types, and layers left on the host beside a GPU."""
    assert plan.budget is not None  # noqa: S101 - narrowed by the caller
    settings = plan.budget.settings
    cache = settings.get("cache_type_k", "f16")
    words = f", cache {cache}" if cache != "f16" else ""
    host = plan.budget.devices[-1]
    if plan.machine.gpus and host.layers is not None:
        words += f", layers {host.layers[0]} to {host.layers[1]} on the host"
    return words


def explanation(plan: Plan, width: int = 80) -> str:
    """Return every item with formula, numbers and source; the leaves of a device sum to its total."""
    assert plan.budget is not None  # noqa: S101 - narrowed by the caller
    lines = ["Why"]
    for device in plan.budget.devices:
        for item in device.items:
            lines.append(f"  {device.device} {item.component} {item.part}: {item.expected_bytes} B [{item.basis}]")
            lines.append(_paragraph(item.formula, width, "      = "))
            if item.inputs:
                numbers = ", ".join(f"{key} {value}" for key, value in item.inputs.items())
                lines.append(_paragraph(numbers, width, "      where "))
            lines.append(_paragraph(item.source, width, "      source: "))
        if device.items:
            lines.append(f"  {device.device} total: {device.expected_bytes} B expected, {device.high_bytes} B at most")
    return "\n".join(lines)
