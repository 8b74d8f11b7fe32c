"""Time without the test suite's own burden: coverage tracing, which slows Python ten times, and its many objects."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Spent:
    """Seconds of one core."""

    seconds: float = 0.0


@contextmanager
def untraced():
    """Measure the processor time of a block, with tracing off and what the suite holds hidden from the collector."""
    tracer = sys.gettrace()
    sys.settrace(None)
    gc.freeze()
    spent, start = Spent(), time.process_time()
    try:
        yield spent
    finally:
        spent.seconds = time.process_time() - start
        gc.unfreeze()
        sys.settrace(tracer)
