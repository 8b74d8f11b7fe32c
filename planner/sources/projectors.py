"""Where a GGUF model's projector is: inside the same file (as Ollama stored some), or in a file beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from planner.catalog import load_data
from planner.errors import SourceError
from planner.quantization import FORMATS
from planner.sources.gguf.file import read_gguf

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from planner.sources.gguf.file import GgufFile
    from planner.sources.gguf.header import Value

EMBEDDED = "sources/embedded.yaml"
MAX_CANDIDATES = 64
_VISION_TENSORS = ("v.", "mm.", "a.")


def embedded_projector(file: GgufFile) -> tuple[GgufFile, GgufFile | None]:
    """Return a file's language part and, where it holds a vision tower too, that one as a projector file.

    Such files name their vision keys ``<architecture>.vision.*``; what the two parts are called elsewhere is data.
    """
    inside = tuple(tensor for tensor in file.tensors if tensor.name.startswith(_VISION_TENSORS))
    if file.architecture in ("", "clip") or not inside:
        return file, None
    rules = load_data(EMBEDDED)["architectures"].get(file.architecture, {})
    kept = tuple(tensor for tensor in file.tensors if not tensor.name.startswith(_VISION_TENSORS))
    metadata = _renamed(file, rules.get("architecture", file.architecture))
    language = replace(file, tensors=kept, metadata=metadata)
    clip = _clip_metadata(file, rules)
    return language, replace(file, tensors=inside, metadata=clip, file_bytes=sum(t.n_bytes for t in inside))


def projector_beside(file: GgufFile, path: Path) -> Path | None:
    """Return the projector file in the folder of ``path`` that fits the model, None where there is none.

    Of several that fit, the one nearest in name and then the one with most bits per weight is taken.

    Raises:
        SourceError: files are there, but none fits and several might.
    """
    candidates = _candidates(path)
    fitting = [found for found in candidates if _fits(file, found)]
    if not fitting:
        return None
    return min(fitting, key=lambda found: (-_shared_prefix(found.name, path.name), -_bits(found), found.name))


def _candidates(path: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []
    own = path.name
    found = [n for n in names if n.endswith(".gguf") and "mmproj" in n.lower() and n != own]
    return [path.parent / name for name in found[:MAX_CANDIDATES]]


def _fits(file: GgufFile, candidate: Path) -> bool:
    """Return whether the candidate is a projector onto the model's width; unreadable ones do not fit."""
    try:
        found = read_gguf(candidate)
    except SourceError:
        return False
    width = file.metadata.get(f"{file.architecture}.embedding_length")
    target = found.metadata.get("clip.vision.projection_dim")
    rows = {tensor.shape[-1] for tensor in found.tensors if tensor.name.startswith(("mm.", "resampler."))}
    return found.architecture == "clip" and (width in rows or target == width)


def _shared_prefix(name: str, model: str) -> int:
    """Return how many characters of the model's name the projector's shares, ``mmproj-`` aside."""
    plain = name.lower().replace("mmproj-", "").replace("-mmproj", "").removesuffix(".gguf")
    return next((i for i, (a, b) in enumerate(zip(plain, model.lower(), strict=False)) if a != b), len(plain))


def _bits(path: Path) -> float:
    """Return the bits per weight of the largest tensor; half precision is preferred to full."""
    tensors = read_gguf(path).tensors
    largest = max(tensors, key=lambda tensor: tensor.n_bytes)
    bits = FORMATS[largest.format].bits_per_element
    return bits if bits <= 16 else 1.0


def _renamed(file: GgufFile, architecture: str) -> dict[str, Value]:
    """Return the metadata under another architecture's word, without the vision keys."""
    old, new = f"{file.architecture}.", f"{architecture}."
    found = {
        (new + key.removeprefix(old) if key.startswith(old) else key): value
        for key, value in file.metadata.items()
        if not key.startswith(f"{old}vision.")
    }
    return found | {"general.architecture": architecture}


def _clip_metadata(file: GgufFile, rules: Mapping[str, Any]) -> dict[str, Value]:
    prefix = f"{file.architecture}.vision."
    own = {f"clip.vision.{key.removeprefix(prefix)}": v for key, v in file.metadata.items() if key.startswith(prefix)}
    fixed: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": rules.get("projector", "unknown"),
    }
    return {**{f"clip.vision.{key}": n for key, n in rules.get("defaults", {}).items()}, **fixed, **own}
