"""What a release charges to its share beside weights and activations, and what stays outside it.

| releases | what counts as memory outside torch |
|---|---|
| to 0.6.3 | use of the card since the context was made, with all that torch keeps cached after the trial run |
| 0.6.4 | use of the whole card less what torch has allocated: context, other processes, pieces torch keeps |
| 0.6.5, 0.6.6 | use of the card since the context was made less what torch has allocated: pieces torch keeps |
| 0.7 and later before V1 | use of the card since the context was made less what torch has reserved |
| V1 0.8.0 to 0.9.0 | as 0.6.4 |
| V1 from 0.9.1 | as 0.7 |

Torch can give back a cached segment only when nothing in it lives, so it may keep as much as the trial run's peak.
Source: vLLM 0.5.4 to 0.20.1, ``worker/worker.py``, ``v1/worker/gpu_worker.py``, ``utils.py``; read 2026-11-20.
"""

from __future__ import annotations

from planner.engines.span import Span, fixed
from planner.engines.vllm.settings import Resolved
from planner.machine import Gpu
from planner.units import GIB, MIB

CONTEXT = Span(low=250 * MIB, expected=400 * MIB, high=640 * MIB)  # CUDA context with torch, before the snapshot
ONE_RANK = Span(low=10 * MIB, expected=90 * MIB, high=250 * MIB)  # logs at one GPU: 0.01 to 0.14 GiB
MORE_RANKS = Span(low=100 * MIB, expected=450 * MIB, high=1024 * MIB)  # logs at two to four: 0.12 to 0.73 GiB
OLD_GRAPHS = Span(low=GIB // 20, expected=GIB // 2, high=3 * GIB)  # "1~3 GiB" by the engine's own warning to 0.6.2
_EXECUTABLE = (32, 350)  # KiB of one piece's graph: low, expected; 250 to 430 in four logs
_EXECUTABLE_HIGH = {True: 1024, False: 512}  # builds for CUDA 11.8, which ended with 0.10, need about 1 MiB


def whole_card(resolved: Resolved) -> bool:
    """Whether the context and other processes are charged to the share."""
    release = resolved.release
    return (0, 6, 4) <= release < (0, 6, 5) if resolved.old_core else release < (0, 9, 1)


def kept_by_torch(resolved: Resolved, compute: Span) -> Span:
    """Return cached memory that is charged beside the peak: up to the peak where reserved memory is not asked for.

    To 0.6.3 it is in the peak itself, which is then the sum of the phases at most.
    """
    counted = (0, 6, 4) <= resolved.release < (0, 7) if resolved.old_core else resolved.release < (0, 9, 1)
    return Span(low=0, expected=0, high=compute.high) if counted else fixed(0)


def used_by_others(gpu: Gpu, resolved: Resolved) -> int:
    """Return the bytes of other processes that the share must pay for."""
    return gpu.total_bytes - gpu.free_bytes if whole_card(resolved) else 0


def outside_torch(context: Span, compute: Span, resolved: Resolved) -> tuple[Span, Span]:
    """Return what is outside torch inside the share, and context and communicators outside it."""
    inside = ONE_RANK if resolved.n_ranks == 1 else MORE_RANKS
    outside = context
    if resolved.n_ranks > 1 and resolved.release >= (0, 11):
        inside, outside = ONE_RANK, context + MORE_RANKS
    inside = inside + kept_by_torch(resolved, compute)
    return (inside + context, fixed(0)) if whole_card(resolved) else (inside, outside)


def graph_span(n_layers: int, resolved: Resolved, *, enforce_eager: bool) -> Span:
    """Return the CUDA graphs: under V1 one executable for each piece between two attentions and each size of batch."""
    if enforce_eager:
        return fixed(0)
    if resolved.old_core:
        return OLD_GRAPHS
    n_executables = (n_layers + 1) * n_sizes(resolved)
    low, expected = (n_executables * kib << 10 for kib in _EXECUTABLE)
    high = n_executables * _EXECUTABLE_HIGH[resolved.release < (0, 11)] << 10
    return Span(low=low, expected=expected, high=max(high, GIB // 4))


def n_sizes(resolved: Resolved) -> int:
    """Return how many sizes of batch are captured: 1, 2, 4, every 8 and from 0.11.1 every 16 beyond 256."""
    most = min(2 * resolved.max_num_seqs, 512)
    fine = most if resolved.release < (0, 11, 1) else min(most, 256)
    sizes = [size for size in (1, 2, 4) if size <= most] + list(range(8, fine + 1, 8))
    return len(sizes) + max(0, most - 256) // 16 if fine < most else len(sizes)
