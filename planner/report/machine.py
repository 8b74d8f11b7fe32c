"""A machine as text and as a mapping."""

from __future__ import annotations

from dataclasses import asdict

from planner.machine import Gpu, Machine
from planner.units import format_bytes


def machine_mapping(machine: Machine) -> dict[str, object]:
    """Return the machine ready for ``json.dumps``; unknown facts are left out."""
    return {
        "schema": 1,
        "simulated": machine.simulated,
        "gpus": [{key: value for key, value in asdict(gpu).items() if value is not None} for gpu in machine.gpus],
        "host": {key: value for key, value in asdict(machine.host).items() if value not in (None, "")},
        "notes": list(machine.notes),
    }


def machine_screen(machine: Machine) -> str:
    """Return one line per device."""
    lines = [_gpu(index, gpu) for index, gpu in enumerate(machine.gpus)] or ["No GPU that this program can see."]
    host = machine.host
    cpu = f"  {host.cpu}" if host.cpu else ""
    if host.bandwidth_bytes_per_s:
        cpu += f", {host.bandwidth_bytes_per_s / 1e9:.0f} GB/s"
    lines.append(
        f"Host   {format_bytes(host.free_bytes)} free of {format_bytes(host.total_bytes)}, {host.n_cores} cores{cpu}"
    )
    return "\n".join(lines)


def _gpu(index: int, gpu: Gpu) -> str:
    facts = [f"{format_bytes(gpu.free_bytes)} free of {format_bytes(gpu.total_bytes)}"]
    if gpu.compute_capability:
        facts.append("compute {}.{}".format(*gpu.compute_capability))
    if gpu.pcie_generation and gpu.pcie_lanes:
        facts.append(f"PCIe {gpu.pcie_generation}.0 x{gpu.pcie_lanes}")
    if gpu.driver:
        facts.append(f"driver {gpu.driver}")
    if gpu.unified_memory:
        facts.append("unified memory")
    return f"{gpu.backend.upper()}{index}  {gpu.name}  {', '.join(facts)}"
