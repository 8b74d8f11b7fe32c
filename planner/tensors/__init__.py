"""A model's tensor inventory. One list serves weights, placement and file formats."""

from planner.tensors.feed_forward import Entry
from planner.tensors.language import language_tensors, layer_tensors
from planner.tensors.vision import vision_tensors

__all__ = ["Entry", "language_tensors", "layer_tensors", "vision_tensors"]
