"""What a model is, as a screen and as a mapping."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from planner.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.sources.inspection import Inspection, StoredFormat


def inspection_mapping(found: Inspection) -> dict[str, object]:
    """Return the facts ready for ``json.dumps``; what is not there is left out."""
    values = asdict(found)
    values["rules"] = {
        engine: {"rule": rule.rule, "parameters": dict(rule.parameters)} for engine, rule in found.rules.items()
    }
    empty: tuple[object, ...] = (None, "", (), {})
    return {"schema": 1} | {key: value for key, value in values.items() if value not in empty}


def inspection_screen(found: Inspection) -> str:
    """Return the facts for people, a line each."""
    lines = [f"{found.name}  ({found.family})", f"  source        {found.source}"]
    lines += _language(found)
    if found.parameters is not None and found.parameters.total:
        lines.append(f"  parameters    {_parameters(found)}")
    lines += _formats("formats", found.formats)
    if found.file_bytes:
        lines.append(f"  file          {format_bytes(found.file_bytes)}")
    lines += _vision(found)
    if found.unknown:
        lines.append(f"  unknown       {found.unknown}")
    lines += [f"  note          {note}" for note in found.notes if note != found.unknown]
    return "\n".join(lines)


def _language(found: Inspection) -> list[str]:
    name = found.architecture or "unknown"
    klass = f", {found.architecture_class}" if found.architecture_class else ""
    stored = f", stored as {found.quantization}" if found.quantization else ""
    tied = ", output shares the embedding" if found.tied_embeddings else ""
    lines = [
        f"  architecture  {name}{klass}{stored}",
        f"  width         {found.n_embd}, vocabulary {found.n_vocab}{tied}",
        f"  context       {found.n_context_train} tokens trained",
    ]
    heading = f"  layers        {found.n_layers or 'unknown'}"
    if found.n_mtp_layers:
        heading += f" (+ {found.n_mtp_layers} for multi-token prediction)"
    lines.append(heading)
    lines += [f"    {kind.n_layers:4d} x      {kind.words}" for kind in found.kinds]
    if found.kv_bytes_per_token is None:
        lines.append("  KV cache      unknown")
    else:
        lines.append(f"  KV cache      {found.kv_bytes_per_token} bytes per token (f16, layers that see all tokens)")
    return lines


def _parameters(found: Inspection) -> str:
    counts = found.parameters
    if counts is None:
        return ""
    parts = ((counts.language, "language"), (counts.vision, "vision"), (counts.projector, "projector"))
    return f"{counts.total:,} ({', '.join(f'{word} {n:,}' for n, word in parts if n)})"


def _formats(title: str, formats: Iterable[StoredFormat]) -> list[str]:
    listed = [
        f"{each.format} {format_bytes(each.n_bytes)}" + (f" in {each.n_tensors} tensors" if each.n_tensors else "")
        for each in formats
    ]
    return [f"  {title:<13} {', '.join(listed)}"] if listed else []


def _vision(found: Inspection) -> list[str]:
    if found.tower is None:
        return ["  vision        none"]
    lines = [f"  vision        tower {found.tower}, projector {found.projector}"]
    lines += _formats("projector", found.projector_formats)
    if found.projector_source:
        lines.append(f"  beside it     {found.projector_source}")
    for engine, rule in found.rules.items():
        values = ", ".join(f"{key} {_short(value)}" for key, value in rule.parameters.items())
        lines.append(f"  image rule    {engine}: {rule.rule} ({values})")
    return lines


def _short(value: object) -> str:
    return f"of {len(value)} numbers" if isinstance(value, tuple) and len(value) > 6 else str(value)
