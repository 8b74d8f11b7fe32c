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
_SIMULATED = "SIMULATED: this machine was described, not detected; a described GPU counts as empty."
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
        if explain:
            text.append(explanation(plan, width))
    if plan.speed:
        text.append(_speed(plan))
    if plan.emitted:
        text.append("Run:\n" + textwrap.indent(plan.emitted.command, "  "))
        if plan.emitted.config:
            text.append(textwrap.indent(plan.emitted.config, "  "))
    if plan.alternatives:
        text.append(_alternatives(plan))
    return "\n\n".join(text)


def _headline(plan: Plan) -> str:
    quantization = f" {plan.model.quantization}" if plan.model.quantization else ""
    return f"{_VERDICTS[plan.verdict]}: {plan.model.name}{quantization} on {plan.engine} {plan.engine_version}"


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


def _speed(plan: Plan) -> str:
    return "\n".join(["Speed (modelled)", *(f"  {name:<22} {value}" for name, value in plan.speed.items())])


def _alternatives(plan: Plan) -> str:
    lines = ["Alternatives"]
    for other in plan.alternatives:
        spare = min((d.headroom_bytes for d in other.budget.devices), default=0) if other.budget else 0
        note = f"{format_bytes(spare)} spare" if other.budget and spare >= 0 else "; ".join(other.reasons[:1])
        lines.append(f"  {other.engine} {other.model.quantization or ''}: {_VERDICTS[other.verdict].lower()}, {note}")
    return "\n".join(lines)


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
