"""What images become, as text and as mappings."""

from __future__ import annotations

from collections.abc import Sequence

from planner.budget import ImageTokens
from planner.model import Model
from planner.report.answer import image_mapping
from planner.units import format_bytes
from planner.vision.advice import ImageAdvice, sequence_tokens
from planner.workload import ImageSize

Advices = Sequence[tuple[ImageSize, ImageAdvice]]


def advice_mapping(model: Model, engine: str, advices: Advices) -> dict[str, object]:
    """Return images with their advice ready for ``json.dumps``."""
    return {"schema": 1, "model": model.name, "engine": engine, "images": [_mapping(advice) for _, advice in advices]}


def _mapping(advice: ImageAdvice) -> dict[str, object]:
    return {
        **image_mapping(advice.asked),
        "decoded_bytes": advice.decoded_bytes,
        "largest_without_waste": image_mapping(advice.no_waste) if advice.no_waste else None,
        "next_cheaper": image_mapping(advice.cheaper) if advice.cheaper else None,
    }


def advice_screen(model: Model, engine: str, advices: Advices) -> str:
    """Return a block per image: its cost and what to send instead."""
    return "\n\n".join([f"{model.name} on {engine}", *(_block(size, advice) for size, advice in advices)])


def _block(size: ImageSize, advice: ImageAdvice) -> str:
    asked = advice.asked
    n_pixels = size.width * size.height
    lines = [
        f"{asked.image}",
        f"  tokens          {_tokens(asked)}",
        f"  resized to      {asked.resized_to}, {asked.tiles} tile{'s' if asked.tiles != 1 else ''}",
        f"  decoded         {n_pixels / 1e6:.2f} million pixels, {format_bytes(advice.decoded_bytes)} as RGB",
        f"  thrown away     {asked.wasted_pixels / 1e6:.2f} M pixels, {asked.wasted_pixels / n_pixels:.0%}",
    ]
    if advice.no_waste is not None and asked.wasted_pixels:
        lines.append(f"  nothing wasted  send {advice.no_waste.image}: {_tokens(advice.no_waste)}")
    if advice.cheaper is not None:
        lines.append(f"  next cheaper    send {advice.cheaper.image}: {_tokens(advice.cheaper)}")
    else:
        lines.append("  next cheaper    none: every smaller size costs as many tokens")
    return "\n".join(lines)


def _tokens(counted: ImageTokens) -> str:
    cross = f", {counted.cross_tokens} cross-attention tokens" if counted.cross_tokens else ""
    return f"{counted.tokens} + {counted.extra_tokens} around them{cross}"


def ladder_mapping(model: Model, engine: str, rows: Sequence[ImageTokens]) -> dict[str, object]:
    """Return the table over usual sizes ready for ``json.dumps``."""
    return {"schema": 1, "model": model.name, "engine": engine, "images": [image_mapping(row) for row in rows]}


def ladder_screen(model: Model, engine: str, rows: Sequence[ImageTokens]) -> str:
    """Return the table over usual sizes."""
    from tabulate import tabulate  # noqa: PLC0415 - 40 ms that JSON can spare

    cells = [
        (row.image, sequence_tokens(row), row.cross_tokens or "", row.tiles, row.resized_to, row.wasted_pixels)
        for row in rows
    ]
    headers = ("image", "tokens", "cross", "tiles", "resized to", "pixels thrown away")
    if not any(row.cross_tokens for row in rows):
        cells = [(a, b, d, e, f) for a, b, _, d, e, f in cells]  # type: ignore[misc]
        headers = (*headers[:2], *headers[3:])  # type: ignore[assignment]
    return f"{model.name} on {engine}\n\n" + tabulate(cells, headers=headers, tablefmt="simple")
