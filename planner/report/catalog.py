"""The catalogue as rows and as a table."""

from __future__ import annotations

from planner.units import format_bytes


def catalog_rows(what: str) -> list[dict[str, object]]:
    """Return one mapping per model, GPU or engine of the catalogue, sorted by name."""
    if what == "gpus":
        return _gpus()
    return _engines() if what == "engines" else _models()


def _models() -> list[dict[str, object]]:
    from planner.catalog import list_profiles  # noqa: PLC0415 - each list reads its own files

    return [
        {
            "name": profile.name,
            "family": profile.family,
            "parameters": profile.parameters.total if profile.parameters else None,
            "images": profile.vision is not None,
            "context": profile.language.context,
            "hf_id": profile.hf_id,
            "aliases": list(profile.aliases),
        }
        for profile in list_profiles()
    ]


def _gpus() -> list[dict[str, object]]:
    from planner.gpu_catalog import gpu_entries  # noqa: PLC0415

    return [
        {
            "name": entry.name,
            "backend": entry.backend,
            "total_bytes": entry.total_bytes,
            "bandwidth_bytes_per_s": entry.bandwidth_bytes_per_s,
            "aliases": list(entry.aliases),
        }
        for entry in gpu_entries()
    ]


def _engines() -> list[dict[str, object]]:
    from planner.catalog.engines import ENGINES, engine_version  # noqa: PLC0415

    return [{"name": name, "version": engine_version(name)} for name in ENGINES]


def catalog_table(rows: list[dict[str, object]]) -> str:
    """Return the rows as a table for people; aliases are left to JSON."""
    from tabulate import tabulate  # noqa: PLC0415 - 40 ms that JSON can spare

    shown = [{key: _cell(key, value) for key, value in row.items() if key != "aliases"} for row in rows]
    return tabulate(shown, headers="keys", tablefmt="simple")


def _cell(key: str, value: object) -> object:
    if value is None:
        return ""
    if key == "total_bytes" and isinstance(value, int):
        return format_bytes(value)
    if key == "bandwidth_bytes_per_s" and isinstance(value, int):
        return f"{value / 1e9:.0f} GB/s"
    if key == "parameters" and isinstance(value, int):
        return f"{value / 1e9:.1f} B"
    if key == "images":
        return "yes" if value else "no"
    return value
