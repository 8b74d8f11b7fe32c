"""True GGUF headers and the quantiser's own answers, unpacked from ``tests/data`` once per run.

``gguf_headers.tar.xz`` holds the headers (metadata and tensor infos, no data) of 140 language files, 35 models in four
file types, and of 29 projector files. ``quantizer_dry_runs.tar.xz`` holds what ``llama-quantize --dry-run`` (llama.cpp
0.5.0-dev) said about 21 further shapes in 17 file types, with the headers it read.
"""

from __future__ import annotations

import json
import tarfile
from functools import cache
from pathlib import Path

from planner.sources.bytes import MemoryBytes
from planner.sources.gguf import GgufFile, read_parts

DATA = Path(__file__).parent / "data"


@cache
def _members(archive: str) -> dict[str, bytes]:
    with tarfile.open(DATA / archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


def headers() -> dict[str, bytes]:
    """Return every true header by file name."""
    return _members("gguf_headers.tar.xz")


def language_headers() -> list[str]:
    """Return the names of the language files."""
    return [name for name in headers() if not name.startswith("mmproj-")]


def projector_headers() -> list[str]:
    """Return the names of the projector files."""
    return [name for name in headers() if name.startswith("mmproj-")]


def read_bytes(data: bytes, name: str = "header.gguf") -> GgufFile:
    """Read a header that is in memory, without its data."""
    return read_parts((name,), lambda part: MemoryBytes(name=part, data=data), allow_truncated=True)


def dry_runs() -> dict[str, tuple[GgufFile, dict[str, list[str]]]]:
    """Return, by model, the file the quantiser read and, per file type, the format of each tensor in order."""
    members = _members("quantizer_dry_runs.tar.xz")
    found = {}
    for name in members:
        if name.endswith(".gguf"):
            stem = name.removesuffix(".gguf")
            answers = json.loads(members[f"{stem}.json"])
            found[stem] = (read_bytes(members[name]), {kind: text.split() for kind, text in answers.items()})
    return found
