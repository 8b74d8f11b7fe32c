"""GGUF files: an own reader of their headers, and the step from a header to a model."""

from planner.sources.gguf.file import GgufFile, part_names, read_gguf, read_parts
from planner.sources.gguf.header import Header, StoredTensor, read_header
from planner.sources.gguf.language import language_from_gguf
from planner.sources.gguf.model import model_from_files, model_from_gguf
from planner.sources.gguf.vision import vision_from_gguf

__all__ = [
    "GgufFile",
    "Header",
    "StoredTensor",
    "language_from_gguf",
    "model_from_files",
    "model_from_gguf",
    "part_names",
    "read_gguf",
    "read_header",
    "read_parts",
    "vision_from_gguf",
]
