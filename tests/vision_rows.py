"""Rows measured on the real processors and on llama.cpp, unpacked from ``tests/data``.

``vision_tokens_hf``: 48 models x 14 sizes; real processors of transformers 5.23.0, published code where ``source`` says
so. ``llamacpp_vision``, ``llamacpp_vision_2026``: llama.cpp 0.5.0-dev on full-size projector files, on a stand-in for a
CUDA device. ``mtmd_odd_sizes``: the same engine, asked later about odd sizes. ``mtmd_preprocessors``: its preprocessors
alone, compiled with every kind of projector's hyper-parameters; views as [width, height, tokens].
``processors_odd_sizes``: the image processors of transformers 5.23.0 at odd sizes, null where they raise.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

DATA = Path(__file__).parent / "data"


@cache
def rows(name: str) -> tuple[dict, ...]:
    """Return the rows of one table."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as lines:
        return tuple(json.loads(line) for line in lines)
