"""The catalogue's models that fit a machine, as rows and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from planner.machine import Machine
from planner.questions.survey import Fitting
from planner.units import format_bytes


def survey_mapping(machine: Machine, found: Sequence[Fitting]) -> dict[str, object]:
    """Return the survey ready for ``json.dumps``."""
    return {"schema": 1, "simulated": machine.simulated, "models": [asdict(fitting) for fitting in found]}


def survey_screen(machine: Machine, found: Sequence[Fitting]) -> str:
    """Return one line per model, best first."""
    from tabulate import tabulate  # noqa: PLC0415 - 40 ms that JSON can spare

    head = "SIMULATED: described, not detected; a described GPU counts as empty.\n" if machine.simulated else ""
    if not found:
        return head + "No model of the catalogue fits this machine with this workload."
    where = "all layers on the GPU" if found[0].on_gpu else "on the CPU"
    rows = [
        (
            fitting.model,
            fitting.quantization,
            f"{fitting.n_parameters / 1e9:.1f} B" if fitting.n_parameters else "",
            "yes" if fitting.images else "no",
            fitting.image_tokens or "",
            fitting.context_tokens,
            format_bytes(fitting.headroom_bytes),
        )
        for fitting in found
    ]
    headers = ("model", "type", "parameters", "images", "image tokens", "context", "spare")
    table = tabulate(rows, headers=headers, tablefmt="simple")
    title = f"Fit {where} with llama.cpp, largest first, each in its best file type:"
    return f"{head}{title}\n\n{table}"
