"""What a projector type of clip is made of: a list of stages, how it merges patches, and what the engine warms up with.

The lists are data (``profiles/engines/llama_cpp/encoders.yaml``); the stages are functions of this package. Every stage
takes the tower and what the stage before returned.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Literal

from planner.engines.llama_cpp.encoder import (
    audio,
    blocks,
    convnext,
    convolutional,
    patches,
    projectors,
    resamplers,
    sam,
    stacked,
    windows,
)
from planner.engines.llama_cpp.encoder.tower import Tower, fact_of, number_of
from planner.engines.llama_cpp.graph import Node
from planner.errors import SourceError
from planner.frozen import dataclass
from planner.model import Vision

StageFunction = Callable[..., Node]
WARM_UPS = ("image", "tokens", "capped", "limit", "pixels", "side")

_FUNCTIONS: tuple[StageFunction, ...] = (
    patches.rescale,
    patches.patches,
    patches.paired_patches,
    patches.unfolded_patches,
    patches.normed_patches,
    patches.shuffled_patches,
    patches.positions,
    patches.axis_positions,
    patches.class_token,
    patches.patches_only,
    patches.clamp_products,
    blocks.blocks,
    blocks.window_mask,
    blocks.window_order,
    blocks.picture_order,
    blocks.permuted,
    windows.banded_blocks,
    projectors.scaled,
    projectors.normed,
    projectors.normed_if_stored,
    projectors.projected,
    projectors.projected_transposed,
    projectors.activated,
    projectors.mlp,
    projectors.standardised,
    projectors.joined,
    projectors.grouped,
    projectors.pooled,
    projectors.shuffled,
    projectors.shuffled_tiles,
    projectors.normed_each,
    projectors.unfolded,
    projectors.convolved,
    projectors.with_features,
    projectors.stacked_features,
    projectors.picked_patches,
    projectors.two_layers,
    projectors.row_breaks,
    projectors.framed,
    projectors.token_block,
    resamplers.resampler,
    resamplers.merging_blocks,
    resamplers.corner_merger,
    resamplers.gated_adapter,
    resamplers.convolving_adapter,
    resamplers.perceiver,
    resamplers.strided_convolutions,
    sam.window_tower,
    sam.tiled_tower,
    sam.queried_tower,
    stacked.stacked_tiles,
    stacked.queried_features,
    stacked.laid_out_tiles,
    convnext.convnext_tower,
    convolutional.staged_tower,
    convolutional.depthwise_projector,
    convolutional.pooling_projector,
    audio.spectrum_convolutions,
    audio.chunk_convolutions,
    audio.frame_convolutions,
    audio.whole_convolutions,
    audio.samples,
    audio.stacked_frames,
    audio.halves_gated,
    audio.gated,
    audio.conformer,
)
STAGES: Mapping[str, StageFunction] = {function.__name__: function for function in _FUNCTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage by its word, with its options."""

    word: str
    options: Mapping[str, object] = field(default_factory=dict)

    def run(self, tower: Tower, x: Node) -> Node:
        """Return the stage's result."""
        return STAGES[self.word](tower, x, **self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """The picture reserved for at load.

    ``by``: the file's ``image`` size, a number of ``tokens``, so many if the token limit allows (``capped``, but no
    limit below ``least``), the largest that the token ``limit`` allows, the file's largest number of ``pixels``
    (``limit`` where it has none), or a ``side``.
    """

    by: Literal["image", "tokens", "capped", "limit", "pixels", "side"] = "image"
    amount: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderKind:
    """A projector type: its stages, and the facts of the engine that its file does not carry.

    ``merge``: patches per side that become one token, read from the file's ``merge_keys`` if it has one. ``patch``:
    side of a patch where the engine has its own. ``patch_merges``: patches are that much larger, nothing merges later.
    ``depth``: ``all`` blocks run, all ``before_last``, or those up to the last feature layer. ``batched``: equal
    pictures are encoded together by programs that batch. ``modality``: what the tower hears or sees. ``overview``: side
    in pixels of the picture of the whole, where the tower treats it unlike its tiles. ``audio``: type of the audio
    tower beside it where the file does not name one; ``none`` where the engine does not load any. ``bins``: numbers per
    frame of an audio tower, where they are not the file's. ``layout``: tokens that the engine lays out anew, as many as
    the image has (``tokens``), or those of ``tiles`` in one picture.
    """

    stages: tuple[Stage, ...]
    merge: int = 1
    merge_keys: tuple[str, ...] = ()
    warm_up: WarmUp = field(default_factory=WarmUp)
    patch: int = 0
    patch_merges: bool = False
    depth: Literal["all", "before_last", "features"] = "all"
    batched: bool = False
    modality: Literal["vision", "audio"] = "vision"
    overview: int = 0
    audio: str = ""
    bins: int = 0
    layout: Literal["", "tokens", "tiles"] = ""

    @property
    def masks(self) -> str:
        """Which blocks see a mask, in the words of the stage ``blocks``."""
        found = (stage.options.get("masks") for stage in self.stages if stage.word == "blocks")
        return str(next(found, None) or "none")

    def merge_of(self, vision: Vision) -> int:
        """Return the patches per side of one token, in this file."""
        found = (number_of(vision, key) for key in self.merge_keys)
        return next((n for n in found if n), self.merge)

    def patch_of(self, vision: Vision) -> int:
        """Return the side of a patch in pixels, in this file."""
        side = self.patch or vision.patch_size
        return side * self.merge_of(vision) if self.patch_merges else side

    def graph_merge_of(self, vision: Vision) -> int:
        """Return what is left to merge in the graph."""
        return 1 if self.patch_merges else self.merge_of(vision)

    def warm_up_side(self, vision: Vision, max_tokens: int | None = None) -> int:
        """Return the side in pixels of the square picture that is reserved for at load.

        ``max_tokens``: the limit set by the user, which only some types look at.
        """
        unit = self.patch_of(vision) * self.graph_merge_of(vision)
        by, amount = self.warm_up.by, self.warm_up.amount
        if by == "tokens":
            return isqrt(amount) * unit
        if by == "capped":
            return isqrt(min(amount, max(max_tokens, self.warm_up.least)) if max_tokens else amount) * unit
        if by == "side":
            return amount
        pixels = number_of(vision, "image_max_pixels") if by == "pixels" else None
        if pixels:
            return isqrt(pixels)
        if by in ("limit", "pixels"):
            return isqrt((max_tokens or amount) * unit * unit)
        return vision.image_size

    def layers_of(self, vision: Vision) -> tuple[int, ...]:
        """Return the numbers of the blocks that run."""
        n = vision.n_layers
        found = fact_of(vision, "feature_layer")
        if self.depth == "features" and isinstance(found, tuple) and found:
            n = min(max(found), n)
        elif self.depth in ("before_last", "features"):
            n -= 1
        return tuple(range(max(n, 0)))


def isqrt(n: int) -> int:
    """Return the whole part of the square root; of a negative number 0."""
    return math.isqrt(max(n, 0))


def encoder_kinds(data: Mapping[str, object]) -> dict[str, EncoderKind]:
    """Return the kinds of ``encoders.yaml`` by projector word.

    Raises:
        SourceError: an entry is not understood; one line says which and why.
    """
    entries = data.get("projectors")
    if not isinstance(entries, Mapping):
        raise SourceError("encoders.yaml: no mapping 'projectors'")
    return {str(word): _kind(str(word), entry) for word, entry in entries.items()}


def _kind(word: str, entry: object) -> EncoderKind:
    if not isinstance(entry, Mapping):
        raise SourceError(f"encoders.yaml: {word}: not a mapping")
    values = dict(entry)
    try:
        stages = tuple(_stage(word, item) for item in values.pop("stages"))
        warm_up = WarmUp(**values.pop("warm_up", {}))
        if warm_up.by not in WARM_UPS:
            raise SourceError(f"encoders.yaml: {word}: warm_up.by {warm_up.by!r} is none of {', '.join(WARM_UPS)}")
        keys = tuple(values.pop("merge_keys", ()))
        return EncoderKind(stages=stages, warm_up=warm_up, merge_keys=keys, **values)
    except (KeyError, TypeError) as error:
        raise SourceError(f"encoders.yaml: {word}: {error}") from error


def _stage(projector: str, item: object) -> Stage:
    word, options = (item, {}) if isinstance(item, str) else next(iter(_single(projector, item).items()))
    function = STAGES.get(str(word))
    if function is None:
        raise SourceError(f"encoders.yaml: {projector}: unknown stage {word!r}")
    known = list(inspect.signature(function).parameters)[2:]
    if not isinstance(options, Mapping) or not set(options) <= set(known):
        raise SourceError(f"encoders.yaml: {projector}: stage {word}: options are {', '.join(known) or 'none'}")
    return Stage(word=str(word), options={key: _frozen(value) for key, value in options.items()})


def _single(projector: str, item: object) -> Mapping[object, object]:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise SourceError(f"encoders.yaml: {projector}: a stage is a word or one word with options, not {item!r}")
    return item


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
