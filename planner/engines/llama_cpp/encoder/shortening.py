"""placeholder"""
from __future__ import annotations
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.model import Vision


def short_layers(vision: Vision, kind: EncoderKind, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Return layers."""
    return layers
