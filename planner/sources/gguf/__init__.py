"""GGUF files: an own reader of their headers, and the step from a header to a model."""

from planner.sources.gguf.file import GgufFile, part_names, read_gguf, read_parts
from planner.sources.gguf.header import Header, StoredTensor, read_header

__all__ = [
    "GgufFile",
    "Header",
    "StoredTensor",
    "part_names",
    "read_gguf",
    "read_header",
    "read_parts",
]
