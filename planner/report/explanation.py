"""The peaks of a plan and what would lower them, as text."""

from __future__ import annotations

from planner.engines.engine import DevicePeak
from planner.questions.explain import SHOWN_TENSORS, Explanation, Remedy
from planner.units import format_bytes


def peaks_screen(explanation: Explanation) -> str:
    """Return where each compute buffer is fullest, and the changes that save memory."""
    lines = ["Peaks", *(line for peak in explanation.peaks for line in _peak(peak))] if explanation.peaks else []
    if explanation.remedies:
        lines += ["What would lower it", *(_remedy(remedy) for remedy in explanation.remedies)]
    return "\n".join(lines)


def _peak(peak: DevicePeak) -> list[str]:
    where = f"in layer {peak.layer}" if peak.layer >= 0 else "outside the layers"
    largest = sorted(peak.live, key=lambda tensor: -tensor[1])[:SHOWN_TENSORS]
    lines = [f"  {peak.device}: {peak.operation} {where}; alive then:"]
    return lines + [f"    {format_bytes(n_bytes):>11}  {name}" for name, n_bytes in largest]


def _remedy(remedy: Remedy) -> str:
    parts = [
        f"{device} {'-' if n_bytes > 0 else '+'}{format_bytes(abs(n_bytes))}"
        for device, n_bytes in remedy.saved_bytes
        if n_bytes
    ]
    return f"  {remedy.change}: {', '.join(parts)}"
