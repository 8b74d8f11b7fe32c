"""A short measurement of the host's memory bandwidth, for ``vlplan detect --probe``."""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from planner.units import MIB

if TYPE_CHECKING:
    from planner.machine import Host

    Pair = tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]

_BUFFER_BYTES = 64 * MIB  # per thread and direction: beyond most last-level caches together
_COPY_SHARE = 0.75  # of the printed bandwidth that a copy reaches; assumed, desktop memory shows 0.7 to 0.8
_SECONDS = 0.15
_MAX_THREADS = 16


def probe_bandwidth(host: Host) -> int | None:
    """Return the printed bandwidth of host memory in bytes per second that the measured rate of copying suggests.

    Every core copies buffers larger than its cache for about 0.15 s; a copied byte counts twice. None where there is
    too little free memory to do that without harm.
    """
    n_threads = max(1, min(host.n_cores, _MAX_THREADS))
    if host.free_bytes < 8 * _BUFFER_BYTES * n_threads:
        return None
    with ThreadPoolExecutor(n_threads) as pool:
        pairs = list(pool.map(_buffers, range(n_threads)))
        began = time.perf_counter()
        runs = [pool.submit(_copy, pair, began + _SECONDS) for pair in pairs]
        copied = sum(run.result() for run in runs)
        seconds = time.perf_counter() - began
    return round(2 * copied / seconds / _COPY_SHARE)


def _buffers(_: int) -> Pair:
    source, target = (ctypes.create_string_buffer(_BUFFER_BYTES) for _ in range(2))
    ctypes.memset(source, 1, _BUFFER_BYTES)
    ctypes.memset(target, 0, _BUFFER_BYTES)
    return source, target


def _copy(pair: Pair, until: float) -> int:
    """Copy until the time is up and return the bytes; ctypes lets other threads run meanwhile."""
    source, target = pair
    copied = 0
    while time.perf_counter() < until:
        ctypes.memmove(target, source, _BUFFER_BYTES)
        copied += _BUFFER_BYTES
    return copied
