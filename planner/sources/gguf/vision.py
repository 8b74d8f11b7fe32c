"""A projector file (mmproj, ``general.architecture`` clip) becomes ``Vision``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.catalog import load_data
from planner.errors import SourceError
from planner.model import Tensor, Vision
from planner.sources.gguf.keys import Keys, keys_of

if TYPE_CHECKING:
    from planner.model import Number
    from planner.sources.gguf.file import GgufFile

PROJECTORS = "engines/llama_cpp/projectors.yaml"
UNKNOWN = "unknown"


def vision_from_gguf(file: GgufFile) -> Vision:
    """Return the vision tower of a projector file; its tensors are those stored, audio towers included.

    ``tower`` is ``unknown`` where the projector's word is not understood.

    Raises:
        SourceError: no projector file, one without a vision tower, or keys without which nothing can be said.
    """
    if file.architecture != "clip":
        raise SourceError(
            f"{file.name}: is no projector file (general.architecture is {file.architecture!r}, not clip)"
        )
    whole, keys = keys_of(file, "clip"), keys_of(file, "clip.vision")
    if not whole.values.get("has_vision_encoder", bool(keys.values)):
        raise SourceError(f"{file.name}: holds no vision tower")
    projector = projector_word(whole)
    return Vision(
        tower=load_data(PROJECTORS)["projectors"].get(projector, UNKNOWN),
        projector=projector,
        n_layers=keys.integer("block_count"),
        n_embd=keys.integer("embedding_length"),
        n_ff=keys.integer("feed_forward_length", 0),
        n_heads=keys.integer("attention.head_count"),
        patch_size=keys.integer("patch_size"),
        image_size=keys.integer("image_size"),
        facts=_facts(whole, keys),
        tensors=tuple(Tensor(name=t.name, shape=t.shape, format=t.format) for t in file.tensors),
    )


def projector_word(whole: Keys) -> str:
    """Return the projector's word; files with two towers have one each, the oldest files none."""
    word = whole.values.get("vision.projector_type", whole.values.get("projector_type", "mlp"))
    return word if isinstance(word, str) else UNKNOWN


def _facts(whole: Keys, keys: Keys) -> dict[str, Number]:
    """Return the further keys: those of the vision tower by their short name, all others after ``clip.``."""
    others = {key: value for key, value in whole.facts().items() if not key.startswith("vision.")}
    return others | keys.facts()
