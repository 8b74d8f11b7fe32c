"""Everything a projector file takes on its device and on the host, as one answer.

The tower lies on the first GPU (``--no-mmproj-offload``: on the host); the text model's placement does not move it.
Files with an audio tower load that too and reserve for it; it has arenas of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from planner.engines.llama_cpp.encoder.bounds import assumed_compute_bytes, may_hold_scores
from planner.engines.llama_cpp.encoder.buffers import Compute, Encoder, FlashAttention, Picture, RunningEncoder
from planner.engines.llama_cpp.encoder.kinds import EncoderKind, isqrt
from planner.engines.llama_cpp.encoder.tower import number_of
from planner.engines.llama_cpp.encoder.weights import encoder_weights, hears
from planner.frozen import dataclass
from planner.model import Number, Vision

Basis = Literal["exact", "assumed"]
AUDIO_FRAMES = 3000
MOST_MERGED = 1 << 16  # patches per side of a token that the engine accepts
AUDIO_PATCH = 4  # frames that become one position at least, for the bound
WARM_UP_PATCHES = 128  # per side: the most that any type is known to warm up with, unless the file sets its pixels
NO_AUDIO = "none"


NOTHING = Compute(device_bytes=0, host_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderBuffers:
    """``weights_bytes`` lie on the device with padding; ``counted_weights_bytes`` is the engine's own figure for them.

    ``warm_up`` stands after load, ``peak`` after the largest picture (never less). ``flash``: whether attention runs in
    one operation in the end. ``basis``: ``assumed`` where the projector type's operations are not known: a high bound.
    """

    on_gpu: bool
    weights_bytes: int
    counted_weights_bytes: int
    warm_up: Compute
    peak: Compute
    flash: bool
    basis: Basis

    @property
    def resident_device_bytes(self) -> int:
        """What the GPU holds after load."""
        return (self.weights_bytes if self.on_gpu else 0) + self.warm_up.device_bytes

    @property
    def peak_device_bytes(self) -> int:
        """What the GPU holds after the largest picture."""
        return (self.weights_bytes if self.on_gpu else 0) + self.peak.device_bytes

    @property
    def resident_host_bytes(self) -> int:
        """What the host holds after load."""
        return (0 if self.on_gpu else self.weights_bytes) + self.warm_up.host_bytes

    @property
    def peak_host_bytes(self) -> int:
        """What the host holds after the largest picture."""
        return (0 if self.on_gpu else self.weights_bytes) + self.peak.host_bytes


_ENCODERS: dict[tuple[int, str, bool, int], tuple[Vision, Encoder]] = {}
_MOST_ENCODERS = 64


def encoder_of(vision: Vision, kind: EncoderKind, *, on_gpu: bool, compute_capability: int) -> Encoder:
    """Return the encoder of ``vision``, the same for the same value: its plans are kept."""
    key = (id(vision), kind.modality, on_gpu, compute_capability)
    held = _ENCODERS.get(key)
    if held is None or held[0] is not vision or held[1].kind is not kind:
        if len(_ENCODERS) >= _MOST_ENCODERS:
            _ENCODERS.clear()
        held = (vision, Encoder(vision, kind, on_gpu=on_gpu, compute_capability=compute_capability))
        _ENCODERS[key] = held
    return held[1]


def encoder_buffers(  # noqa: PLR0913 - a tower, its pictures and the settings that matter to it
    vision: Vision,
    kinds: Mapping[str, EncoderKind],
    pictures: Iterable[Picture] = (),
    *,
    flash_attn: FlashAttention = "auto",
    on_gpu: bool = True,
    compute_capability: int = 890,
    max_tokens: int | None = None,
    warm_up: bool = True,
) -> EncoderBuffers:
    """Return the memory of ``vision`` at load and after ``pictures``, encoded in that order.

    Args:
        vision: the tower, with its stored tensors.
        kinds: ``encoder_kinds`` of the engine's data, by projector word.
        pictures: what is encoded in one go each, in pixels after resizing and slicing.
        flash_attn: the engine's flag.
        on_gpu: false with ``--no-mmproj-offload`` or without a GPU.
        compute_capability: of the GPU, times 100.
        max_tokens: ``--image-max-tokens``.
        warm_up: false with ``--no-warmup``: nothing is reserved before the first picture.
    """
    asked = list(pictures)
    kind = kinds.get(vision.projector)
    audio_word = kind.audio if kind is not None else ""
    weights = encoder_weights(vision, on_gpu=on_gpu, audio=audio_word != NO_AUDIO)
    known = None
    if kind is not None and kind.modality == "vision":
        first = warm_up_picture(vision, kind, max_tokens) if warm_up else None
        known = _simulated(vision, kind, first, asked, flash_attn, (on_gpu, compute_capability))
    at_load, peak, flash = known or _assumed(vision, asked, flash_attn, on_gpu=on_gpu)
    basis: Basis = "exact" if known else "assumed"
    heard, heard_basis = _audio(vision, audio_word, kinds, flash_attn, (on_gpu, compute_capability))
    return EncoderBuffers(
        on_gpu=on_gpu,
        weights_bytes=weights.loaded_bytes,
        counted_weights_bytes=weights.counted_bytes,
        warm_up=at_load.plus(heard) if warm_up else at_load,
        peak=peak.plus(heard) if warm_up else peak,
        flash=flash,
        basis="assumed" if "assumed" in (basis, heard_basis) else "exact",
    )


def warm_up_picture(vision: Vision, kind: EncoderKind, max_tokens: int | None = None) -> Picture:
    """Return the picture reserved for at load."""
    side = kind.warm_up_side(vision, max_tokens)
    return Picture(width=side, height=side)


def _simulated(  # noqa: PLR0913 - a tower, what it is given, and where it runs
    vision: Vision,
    kind: EncoderKind,
    first: Picture | None,
    pictures: Sequence[Picture],
    flash_attn: FlashAttention,
    where: tuple[bool, int],
) -> tuple[Compute, Compute, bool] | None:
    """Return the arenas after load, after all pictures, and whether flash attention is used; None for a misfit.

    A misfit is a file whose tensors or sizes are not those of its kind.
    """
    if not is_plausible(vision) or not 0 < kind.merge_of(vision) < MOST_MERGED:
        return None
    encoder = encoder_of(vision, kind, on_gpu=where[0], compute_capability=where[1])
    begin = first or next(iter(pictures), None)
    if begin is None:
        return NOTHING, NOTHING, flash_attn != "off"
    try:
        running = RunningEncoder(encoder, flash_attn, begin)
        at_load = running.arenas if first else NOTHING
        for picture in pictures:
            running.encode(picture)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None
    return at_load, running.arenas, running.flash


def is_plausible(vision: Vision) -> bool:
    """Whether sizes are positive (those of blocks only if there are any), with no more blocks than stored tensors."""
    with_blocks = not vision.n_layers or min(vision.n_embd, vision.n_heads) > 0
    return with_blocks and vision.patch_size > 0 and 0 <= vision.n_layers <= len(vision.tensors)


def _assumed(
    vision: Vision, pictures: Sequence[Picture], flash_attn: FlashAttention, *, on_gpu: bool
) -> tuple[Compute, Compute, bool]:
    """Return bounds for a tower whose operations are not known."""
    most_pixels = number_of(vision, "image_max_pixels") or 1
    side = max(vision.image_size, WARM_UP_PATCHES * vision.patch_size, isqrt(most_pixels))
    scores = may_hold_scores(vision, flash_attn, on_gpu=on_gpu)
    sizes = [Picture(width=side, height=side), *pictures]
    bounds = [assumed_compute_bytes(vision, p.width, p.height, p.batch, scores=scores) for p in sizes]
    return _bound(bounds[0], on_gpu=on_gpu), _bound(max(bounds), on_gpu=on_gpu), not scores


def _bound(n_bytes: int, *, on_gpu: bool) -> Compute:
    return Compute(device_bytes=n_bytes if on_gpu else 0, host_bytes=n_bytes)


# ---- the other tower of a file with two


def audio_tower(vision: Vision, word: str = "") -> Vision | None:
    """Return the audio tower of a projector file as a value of the same kind, or None.

    ``word``: its type where the file does not name one; ``none`` where the engine loads none.
    """
    if word == NO_AUDIO or not hears(vision):
        return None
    facts: dict[str, Number] = {k.removeprefix("audio."): v for k, v in vision.facts.items() if k.startswith("audio.")}
    return replace(
        vision,
        tower="audio",
        projector=str(facts.get("projector_type", word)),
        n_layers=_number(facts, "block_count"),
        n_embd=_number(facts, "embedding_length"),
        n_ff=_number(facts, "feed_forward_length"),
        n_heads=_number(facts, "attention.head_count"),
        patch_size=1,
        image_size=0,
        facts=facts,
    )


def _number(facts: Mapping[str, Number], key: str) -> int:
    value = facts.get(key)
    return int(value) if isinstance(value, (int, float)) else 0


_TOWERS: dict[int, tuple[Vision, Vision | None]] = {}


def _audio(
    vision: Vision,
    word: str,
    kinds: Mapping[str, EncoderKind],
    flash_attn: FlashAttention,
    where: tuple[bool, int],
) -> tuple[Compute, Basis]:
    """Return what the file's audio tower reserves at load; ``where``: on a GPU or not, compute capability."""
    held = _TOWERS.get(id(vision))
    if held is None or held[0] is not vision:
        if len(_TOWERS) >= _MOST_ENCODERS:
            _TOWERS.clear()
        held = _TOWERS[id(vision)] = (vision, audio_tower(vision, word))
    tower = held[1]
    if tower is None:
        return NOTHING, "exact"
    kind = kinds.get(tower.projector)
    bins = kind.bins if kind is not None else 0
    frames = Picture(width=AUDIO_FRAMES, height=bins or _number(tower.facts, "num_mel_bins"))
    known = None
    if kind is not None and kind.modality == "audio":
        known = _simulated(tower, kind, frames, (), flash_attn, where)
    if known is None:
        n_bytes = assumed_compute_bytes(replace(tower, patch_size=AUDIO_PATCH), AUDIO_FRAMES * AUDIO_PATCH, AUDIO_PATCH)
        return _bound(n_bytes, on_gpu=where[0]), "assumed"
    return known[0], "exact"


def fit_reservation(buffers: EncoderBuffers) -> int:
    """Return the bytes that llama-server adds to the spare memory of the first GPU before it fits the text model.

    Its own count of the weights (without padding) and the warm-up's compute; nothing for growth by larger pictures.
    llama-mtmd-cli and llama-fit-params add nothing.
    """
    return buffers.counted_weights_bytes + buffers.warm_up.device_bytes if buffers.on_gpu else 0
